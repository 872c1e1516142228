#!/usr/bin/env python3
"""The commands of README's "A run", in order and as they are written, on a small model and text."""

import subprocess

from switchyard_run import CONFIG, PROGRAM, ROOT, Scenario, environment, main


def commands():
    """Of the section's blocks, those that are the program's or local.sh's; a line may go on in the next."""
    section = (ROOT / "README.md").read_text().split("\n## A run\n")[1].split("\n## ")[0]
    code = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    return [line for line in code.replace("\\\n", " ").splitlines() if line.startswith(("build/switchyard ", "launch/"))]


class Readme(Scenario):
    def test_a_run(self):
        (self.folder / "build").mkdir()
        (self.folder / "build/switchyard").symlink_to(PROGRAM)
        (self.folder / "launch").symlink_to(ROOT / "launch")
        (self.folder / "configs").mkdir()
        (self.folder / "configs/quickstart.yaml").write_text(CONFIG + "parallel: {expert: 2}\n")
        text = (self.folder / "text.txt").read_text()
        (self.folder / "book.txt").write_text(text)
        (self.folder / "more.jsonl").write_text('{"text": "abc"}\n')
        (self.folder / "held-out.txt").write_text(text[::-1])

        said = commands()
        self.assertGreater(len(said), 10)
        for command in said:
            with self.subTest(command):
                done = subprocess.run(["bash", "-c", command], cwd=self.folder, env=environment(), text=True,
                                      errors="backslashreplace", stdin=subprocess.DEVNULL, capture_output=True)
                self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        for run in ("mine", "dense", "upcycled"):
            self.assertEqual(self.latest(f"runs/{run}"), "step-00000006")


if __name__ == "__main__":
    main()
