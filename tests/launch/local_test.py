#!/usr/bin/env python3
"""launch/local.sh with the real program and mpirun.  local_test.py PROGRAM ROOT [unittest's arguments]"""

import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import termios
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "app"))

from switchyard_run import ROOT, Result, Scenario, environment, main

LOCAL = ROOT / "launch/local.sh"
LONG = ("train.steps=1000000", "train.eval_every=0", "parallel.expert=2")  # more than any test waits for
STOPPED = 75


def children(pid):
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid):
    try:
        return "State:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


class Local(Scenario):
    def lines(self):
        path = self.folder / "run/metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def start_long(self, *arguments, **options):
        return self.start("train", "tiny.yaml", *LONG, *arguments, ranks=2, **options)

    def at_a_terminal(self, *arguments):
        """A job with a terminal of its own, and the end at which the user types."""
        ours, theirs = os.openpty()
        self.addCleanup(os.close, ours)

        def take_terminal():
            os.setsid()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        job = self.start_long(*arguments, preexec_fn=take_terminal)
        os.close(theirs)
        return job, lambda: os.write(ours, b"\x03")

    def call(self, *arguments, **environ):
        done = subprocess.run([LOCAL, *arguments], cwd=self.folder, env={**environment(), **environ}, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
        return Result(done.returncode, done.stdout, done.stderr, 0)

    def stand_in(self, name, *lines):
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(("#!/bin/sh", *lines, "")))
        path.chmod(0o755)
        return str(path)

    def test_ctrl_c_saves_and_the_same_command_resumes(self):
        job, ctrl_c = self.at_a_terminal()
        with job:
            job.wait_for(lambda: self.lines() >= 3)
            ctrl_c()
            stopped = job.finish()
        self.assertEqual((stopped.code, stopped.err), (STOPPED, ""), stopped)
        step = self.lines()
        self.assertEqual(self.latest(), f"step-{step:08d}")
        self.assertDone(self.run_here("verify", "run"))
        resumed = self.call("tiny.yaml", "-n", "2", *LONG, f"train.steps={step + 2}")
        self.assertDone(resumed)
        self.assertIn(f"at step {step}", resumed.out)
        self.assertEqual(self.lines(), step + 2)

    def test_ctrl_c_twice_ends_what_hangs(self):
        job, ctrl_c = self.at_a_terminal("--restarts", "3")
        with job:
            job.wait_for(lambda: self.lines() >= 1)
            ranks = job.ranks()
            os.kill(ranks[1], signal.SIGSTOP)
            ctrl_c()
            time.sleep(1.5)
            self.assertIsNone(job.process.poll())
            ctrl_c()
            ended = job.finish(timeout=20)
        self.assertEqual(ended.code, 128 + signal.SIGINT, ended)
        self.assertNotIn("starting again", ended.err)
        left, end = set(ranks), time.monotonic() + 10  # the kernel may take a moment to end a process that was killed
        while left and time.monotonic() < end:
            left = {rank for rank in left if runs(rank)}
            time.sleep(0.02)
        self.assertEqual(left, set())

    def test_a_signal_before_the_ranks_are_there(self):
        with self.start_long() as job:
            job.wait_for(lambda: any("mpirun" in pathlib.Path(f"/proc/{pid}/comm").read_text()
                                     for pid in children(job.process.pid)))
            job.process.send_signal(signal.SIGTERM)
            self.assertEqual(job.finish(timeout=30).code, STOPPED)

    def test_a_signal_that_mpirun_drops_is_repeated(self):
        self.stand_in("mpirun", "trap '' USR1", "touch deaf", "sleep 0.5", "trap 'exit 75' USR1",
                      "for i in $(seq 200); do sleep 0.05; done")
        path = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        with subprocess.Popen([LOCAL, "tiny.yaml", "-n", "2"], cwd=self.folder, env={**environment(), **path}) as job:
            while not (self.folder / "deaf").exists():
                time.sleep(0.01)
            job.terminate()
            self.assertEqual(job.wait(timeout=30), STOPPED)

    def test_restarts(self):
        """Stopped by SIGUSR1, then a rank lost, then told to leave with a restart left: no step twice, none left out."""
        with self.start_long("checkpoint.every=5", "--restarts", "3") as job:
            job.wait_for(lambda: len(job.ranks()) == 2 and self.lines() >= 3)
            first = set(job.ranks())
            job.process.send_signal(signal.SIGUSR1)
            job.wait_for(lambda: len(set(job.ranks()) - first) == 2)
            stopped = self.lines()
            job.wait_for(lambda: self.lines() >= stopped + 7)
            second = set(job.ranks())
            begin = time.monotonic()
            os.kill(max(second), signal.SIGKILL)
            job.wait_for(lambda: len(set(job.ranks()) - first - second) == 2)
            self.assertLess(time.monotonic() - begin, 20)  # it takes two
            killed = self.lines()
            job.wait_for(lambda: self.lines() > killed)
            job.process.send_signal(signal.SIGTERM)
            ended = job.finish()
        self.assertEqual(ended.code, STOPPED, ended)
        self.assertEqual(ended.err.count("starting again"), 2, ended)
        self.assertIn("exit code 75: starting again, 1 of 3", ended.err)
        self.assertIn("exit code 137: starting again, 2 of 3", ended.err)
        self.assertEqual([each["step"] for each in self.metrics()], list(range(1, self.lines() + 1)))

    def test_restarts_end_at_their_limit_and_never_follow_a_mistake(self):
        lost = self.stand_in("lost", "kill -KILL $$")
        ended = self.call("tiny.yaml", "-n", "2", "--restarts", "1", SWITCHYARD=lost)
        self.assertEqual((ended.code, ended.err.count("starting again")), (137, 1), ended)
        self.assertRefused(self.call("tiny.yaml", "-n", "2", "--restarts", "2", "model.n_head=3"), 2, "n_heads")

    def test_what_is_missing_is_told_with_the_remedy(self):
        tools = self.folder / "tools"
        tools.mkdir()
        for tool in ("bash", "dirname", "sed"):
            (tools / tool).symlink_to(shutil.which(tool))
        for arguments, environ, words in (
            ((), {}, ("configuration",)),
            (("tiny.yaml", "-n"), {}, ("-n",)),
            (("tiny.yaml", "-n", "0"), {}, ("-n", "'0'")),
            (("tiny.yaml", "--restarts", "often"), {}, ("--restarts", "'often'")),
            (("tiny.yaml",), {"SWITCHYARD": "/nowhere/switchyard"}, ("/nowhere/switchyard", "cmake --build")),
            (("tiny.yaml",), {"PATH": str(tools)}, ("mpirun", "apt-get install openmpi-bin")),
        ):
            with self.subTest(arguments=arguments, environ=environ):
                told = self.call(*arguments, **environ)
                self.assertEqual((told.code, told.out), (2, ""), told)
                self.assertEqual(told.err.count("local.sh:"), 1, told)
                for word in words:
                    self.assertIn(word, told.err)

    def test_a_rank_a_gpu_or_numa_node(self):
        program = self.stand_in("program", "echo rank")
        self.stand_in("nvidia-smi", "echo 'GPU 0: A'; echo '  MIG 1g: B'; echo 'GPU 1: A'; echo 'GPU 2: A'")
        self.stand_in("lscpu", "printf '# NODE\\n0\\n1\\n0\\n1\\n'")
        nodes = 2 if len(os.sched_getaffinity(0)) == os.cpu_count() else 1
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        for visible, ranks in ((None, 3), ("2", 1), ("0,2", 2), ("", nodes), ("-1", nodes)):
            environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
            self.assertEqual(self.call("x.yaml", SWITCHYARD=program, PATH=path, **environ).out, "rank\n" * ranks, visible)
        self.assertEqual(self.call("analyze", "run", SWITCHYARD=program, PATH=path).out, "rank\n")

    def test_each_rank_gets_its_share_of_the_cores(self):
        program = self.stand_in("program", "taskset -cp $$ >mask-$OMPI_COMM_WORLD_RANK")
        mine = sorted(os.sched_getaffinity(0))

        def cores(text):  # "... list: 0-3,8"
            spans = [[int(end) for end in span.split("-")] for span in text.split(": ")[1].split(",")]
            return [core for span in spans for core in range(span[0], span[-1] + 1)]

        def masks(ranks):
            self.assertDone(self.call("x.yaml", "-n", str(ranks), SWITCHYARD=program))
            return [cores((self.folder / f"mask-{rank}").read_text()) for rank in range(ranks)]

        self.assertEqual(masks(1), [mine])
        self.assertEqual(masks(len(mine) + 1), [mine] * (len(mine) + 1))
        if len(mine) == os.cpu_count() and len(mine) % 2 == 0:
            halves = masks(2)
            self.assertEqual([len(half) for half in halves], [len(mine) // 2] * 2)
            self.assertEqual(sorted(sum(halves, [])), mine)
        self.addCleanup(os.sched_setaffinity, 0, mine)
        os.sched_setaffinity(0, mine[-1:])  # inherited, as from taskset
        self.assertEqual(masks(1) + masks(2), [mine[-1:]] * 3)

    def test_arguments_reach_the_program(self):
        program = self.stand_in("program", "for a; do echo \"[$a]\"; done")
        for given, wanted in (
            (("a b.yaml", "-n", "1", "run.dir=x y"), ["train", "a b.yaml", "run.dir=x y"]),
            (("-n", "1", "eval", "run"), ["eval", "run"]),
            (("generate", "run", "-n", "1", "--prompt", "She had"), ["generate", "run", "--prompt", "She had"]),
        ):
            self.assertEqual(self.call(*given, SWITCHYARD=program).out.splitlines(), [f"[{each}]" for each in wanted])


if __name__ == "__main__":
    main()
