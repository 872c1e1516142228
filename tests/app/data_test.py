#!/usr/bin/env python3
"""Token files that are missing, foreign, damaged or do not fit: one clear error, exit code 3."""

import json
import shutil
import struct

from switchyard_run import Scenario, main

HEADER = 34  # bytes of a Megatron index before its arrays: magic 9, version 8, type 1, sequences 8, documents 8


class TokenFiles(Scenario):
    def damage(self, suffix, change):
        """Rewrites one of the token file's parts; without its .json, a reader has only what is within."""
        path = self.folder / f"tokens.{suffix}"
        path.write_bytes(change(path.read_bytes()))

    def forget_hashes(self):
        (self.folder / "tokens.json").unlink()

    def assertRefusedEverywhere(self, *words):
        """By verify and by train, which has not begun to write a run."""
        self.assertRefused(self.run_here("verify", "tokens"), 3, *words)
        self.assertRefused(self.train(), 3, *words)
        self.assertFalse((self.folder / "run").exists())

    def test_a_good_file(self):
        good = self.run_here("verify", "tokens")
        self.assertDone(good)
        self.assertIn("good", good.out)
        for path in ("tokens", "tokens.bin", "tokens.idx"):
            told = self.run_here("verify", path, "--json")
            self.assertDone(told)
            report = json.loads(told.out)
            size = (self.folder / "text.txt").stat().st_size
            self.assertEqual((report["good"], report["documents"], report["tokens"]), (True, 1, size + 1))

    def test_damaged_files(self):
        """Each way to damage one, with and without the hashes beside it."""
        def put(form, offset, value):
            return lambda b: b[:offset] + struct.pack(form, value) + b[offset + struct.calcsize(form):]

        ways = {
            ("bin", "cut in half"): lambda b: b[: len(b) // 2],
            ("bin", "an odd byte short"): lambda b: b[:-1],
            ("bin", "longer"): lambda b: b + b"\0\0",
            ("bin", "empty"): lambda b: b"",
            ("idx", "cut in its header"): lambda b: b[:20],
            ("idx", "cut in its arrays"): lambda b: b[:-8],
            ("idx", "empty"): lambda b: b"",
            ("idx", "foreign"): lambda b: b"GGUF" + b[4:],
            ("idx", "text"): lambda b: b"It is a truth universally acknowledged" * 10,
            ("idx", "another version"): put("<Q", 9, 2),
            ("idx", "unknown type of token"): put("<B", 17, 77),
            ("idx", "floating-point tokens"): put("<B", 17, 7),
            ("idx", "more sequences than bytes"): put("<Q", 18, 1 << 60),
            ("idx", "no documents"): put("<Q", 26, 0),
            ("idx", "negative length"): put("<i", HEADER, -5),
            ("idx", "pointer outside"): put("<q", HEADER + 4, 1 << 40),
            ("idx", "negative pointer"): put("<q", HEADER + 4, -2),
        }
        originals = {suffix: (self.folder / f"tokens.{suffix}").read_bytes() for suffix in ("bin", "idx", "json")}
        for hashed in (True, False):
            for (suffix, way), change in ways.items():
                with self.subTest(f"{suffix} {way}, {'with' if hashed else 'without'} hashes"):
                    for each, content in originals.items():
                        (self.folder / f"tokens.{each}").write_bytes(content)
                    if not hashed:
                        self.forget_hashes()
                    self.damage(suffix, change)
                    self.assertRefused(self.run_here("verify", "tokens"), 3, "tokens")

    def test_train_refuses_what_verify_does(self):
        self.damage("bin", lambda b: b[: len(b) // 2])
        self.assertRefusedEverywhere("tokens.bin")
        self.assertRefused(self.train(ranks=2), 3, "tokens.bin")

    def test_missing_files(self):
        self.assertRefused(self.train("data.train=[{path: nowhere}]"), 3, "nowhere")
        together = self.train("data.train=[{path: nowhere}]", ranks=2)
        self.assertRefused(together, 3, "nowhere")
        self.assertLess(together.seconds, 10, "the launcher waits for ranks that are gone")
        self.assertRefused(self.train("data.valid=[{path: nowhere}]"), 3, "nowhere")
        self.assertRefused(self.run_here("verify", "nowhere"), 3, "nowhere")
        told = self.run_here("verify", "nowhere", "--json")
        self.assertEqual((told.code, json.loads(told.out)["good"]), (3, False), told)
        self.assertRefused(self.run_here("tokenize", "nowhere.txt", "--out", "new"), 3, "nowhere.txt")
        self.assertEqual(sorted(self.folder.glob("new*")), [])

    def test_a_damaged_description(self):
        for text in ("", "{", "[]", "{}", '{"vocab_size": "many"}'):
            with self.subTest(text):
                (self.folder / "tokens.json").write_text(text)
                self.assertRefused(self.run_here("verify", "tokens"), 3, "tokens.json")

    def test_a_flipped_token_is_found_by_its_hash(self):
        self.damage("bin", lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:])
        told = self.run_here("verify", "tokens")
        self.assertEqual(told.code, 3, told)
        self.assertIn("tokens.bin", told.out + told.err)
        told = self.run_here("verify", "tokens", "--json")
        self.assertEqual(told.code, 3, told)
        report = json.loads(told.out)
        self.assertEqual((report["good"], len(report["problems"])), (False, 1))

    def test_a_vocabulary_that_does_not_fit(self):
        self.assertRefused(self.train("model.vocab_size=200"), 3, "258", "200")
        self.assertRefused(self.train("model.vocab_size=200", ranks=2), 3, "258", "200")

    def test_tokens_outside_the_vocabulary(self):
        """In the middle of a file without a description, where only reading the token tells."""
        count = (self.folder / "tokens.bin").stat().st_size // 2
        self.forget_hashes()
        self.damage("bin", lambda b: struct.pack("<H", 999) * count)
        self.assertDone(self.run_here("verify", "tokens"))
        told = self.run_here("verify", "tokens", "--vocab-size", "258")
        self.assertEqual(told.code, 3, told)
        self.assertIn("999", told.out)
        self.assertRefused(self.train(), 3, "999", "258")
        self.assertRefused(self.train(ranks=2), 3, "999", "258")

    def test_negative_tokens(self):
        self.forget_hashes()
        self.damage("idx", lambda b: b[:17] + b"\x04" + b[18:])  # i32: half as many tokens
        self.damage("idx", lambda b: b[:HEADER] + struct.pack("<i", 600) + b[HEADER + 4:])
        self.damage("bin", lambda b: struct.pack("<i", -7) * 600)
        told = self.run_here("verify", "tokens")
        self.assertEqual(told.code, 3, told)
        self.assertIn("-7", told.out)
        self.assertRefused(self.train(), 3, "-7")

    def test_fewer_tokens_than_a_sample(self):
        (self.folder / "text.txt").write_text("short")
        self.assertDone(self.run_here("tokenize", "text.txt", "--out", "tokens"))
        self.assertRefused(self.train("data.valid=[]"), 3, "tokens", "16")
        (self.folder / "text.txt").write_text("")
        self.assertRefused(self.run_here("tokenize", "text.txt", "--out", "none"), 3)


class Tokenizers(Scenario):
    def called(self, name):
        """The same tokens, said to be of another tokenizer."""
        description = json.loads((self.folder / "tokens.json").read_text())
        (self.folder / f"{name}.json").write_text(json.dumps({**description, "tokenizer": name}))
        for suffix in ("bin", "idx"):
            shutil.copy(self.folder / f"tokens.{suffix}", self.folder / f"{name}.{suffix}")

    def tokenizer(self):
        return json.loads(self.run_here("inspect", "run", "--json").out)["tokenizer"]

    def test_a_checkpoint_has_the_tokenizer_of_its_data(self):
        self.finished("train.steps=1")
        self.assertEqual(self.tokenizer(), "bytes")
        self.assertDone(self.run_here("generate", "run", "--prompt", "ab", "--tokens", "2"))

    def test_text_is_not_made_of_tokens_of_another(self):
        self.called("words")
        self.finished("train.steps=1", "data={train: [{path: words}], valid: [{path: words}]}")
        self.assertEqual(self.tokenizer(), "words")
        self.assertRefused(self.run_here("generate", "run"), 2, "no tokenizer is called 'words'", "bytes")
        self.assertRefused(self.run_here("analyze", "run"), 2, "no tokenizer is called 'words'")

    def test_nor_of_one_that_nobody_named(self):
        (self.folder / "tokens.json").unlink()
        self.finished("train.steps=1")
        self.assertEqual(self.tokenizer(), "unknown")
        self.assertRefused(self.run_here("generate", "run"), 2, "nothing tells which tokenizer", ".json")

    def test_a_run_has_one(self):
        self.called("words")
        for ranks in (None, 2):
            mixed = self.train("data.train=[{path: tokens}, {path: words}]", ranks=ranks)
            self.assertRefused(mixed, 3, "words.json", "tokens.json")
        self.assertFalse((self.folder / "run").exists())


class Tokenize(Scenario):
    def test_json_lines_with_domains(self):
        lines = [{"text": "one", "domain": "a"}, {"text": "två", "domain": "b"}, {"text": "three", "domain": "a"}]
        (self.folder / "docs.jsonl").write_text("\n".join(map(json.dumps, lines)))
        self.assertDone(self.run_here("tokenize", "docs.jsonl", "--out", "docs"))
        report = json.loads(self.run_here("verify", "docs", "--json").out)
        self.assertEqual((report["documents"], report["tokens"]), (3, 3 + 4 + 5 + 3))
        self.assertEqual(report["documents_by_domain"], {"a": 2, "b": 1})

    def test_wrong_json_lines_leave_nothing(self):
        for text in ('{"text": 1}\n', '{"text": "a"\n', "[]\n", '{"txt": "a"}\n'):
            with self.subTest(text):
                (self.folder / "docs.jsonl").write_text('{"text": "fine"}\n' + text)
                self.assertRefused(self.run_here("tokenize", "docs.jsonl", "--out", "docs"), 3, "docs.jsonl:2")
                self.assertEqual(sorted(p.name for p in self.folder.glob("docs*")), ["docs.jsonl"])

    def test_an_unknown_tokenizer(self):
        answer = self.run_here("tokenize", "text.txt", "--out", "x", "--tokenizer", "gpt2")
        self.assertRefused(answer, 2, "gpt2", "bytes")

    def test_an_output_that_cannot_be(self):
        answer = self.run_here("tokenize", "text.txt", "--out", "text.txt/below")
        self.assertRefused(answer, 3, "text.txt: ")


if __name__ == "__main__":
    main()
