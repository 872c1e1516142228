#!/usr/bin/env python3
"""Runs that are stopped, killed, continued and repeated, and what they write."""

import math
import os
import shutil
import signal

from switchyard_run import LIMIT, Scenario, main

LONG = ("train.steps=1000000", "train.eval_every=0")  # more than any test waits for
STOPPED = 75

KEYS = ["step", "tokens", "loss", "balance_loss", "z_loss", "lr", "grad_norm", "tokens_per_second", "drop_fraction",
        "router_entropy", "expert_load"]


class Runs(Scenario):
    def lines(self, directory="run"):
        path = self.folder / directory / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def step_of_latest(self, directory="run"):
        return int(self.latest(directory).removeprefix("step-"))

    def stop(self, name, *overrides, ranks=None):
        """A run that the signal reaches after its third step."""
        with self.start("train", "tiny.yaml", *LONG, "checkpoint.every=0", *overrides, ranks=ranks) as job:
            job.wait_for(lambda: self.lines() >= 3)
            job.process.send_signal(name)
            return job.finish()

    def test_metrics(self):
        self.finished()
        for number, line in enumerate(self.metrics(), 1):
            self.assertEqual(list(line), KEYS + (["val_loss"] if number % 3 == 0 else []))
            self.assertEqual((line["step"], line["tokens"]), (number, number * 8 * 16))
            self.assertEqual([len(each) for each in line["expert_load"]], [4])
            self.assertAlmostEqual(sum(line["expert_load"][0]) + line["drop_fraction"], 1, places=6)
            self.assertTrue(0 < line["router_entropy"] <= math.log(4) + 1e-6)
            self.assertTrue(all(line[key] > 0 for key in ("loss", "lr", "grad_norm", "tokens_per_second")))
        self.assertEqual(line["step"], 6)

    def test_again_says_done(self):
        self.finished()
        before = (self.folder / "run/metrics.jsonl").read_bytes()
        for ranks in (None, 2):
            again = self.finished(ranks=ranks)
            self.assertIn("done already: 6 of 6 steps", again.out)
        self.assertEqual((self.folder / "run/metrics.jsonl").read_bytes(), before)

    def test_same_seed_same_losses(self):
        self.finished("run.dir=a")
        self.finished("run.dir=b")
        self.finished("run.dir=c", "run.seed=2")
        self.assertEqual(self.losses("a"), self.losses("b"))
        self.assertNotEqual(self.losses("a"), self.losses("c"))

    def test_stop_and_resume_changes_nothing(self):
        """Two ranks stopped by SIGUSR1 to mpirun, against a run that nobody stopped."""
        stopped = self.stop(signal.SIGUSR1, "parallel.expert=2", ranks=2)
        self.assertEqual(stopped.code, STOPPED, stopped)
        self.assertIn("stopped by a signal", stopped.out)
        self.assertQuiet(stopped)
        self.assertEqual(stopped.err, "", stopped)
        step = self.step_of_latest()
        self.assertEqual(self.lines(), step)
        options = (f"train.steps={step + 4}", "parallel.expert=2", "train.eval_every=0", "checkpoint.every=0")
        resumed = self.finished(*options, ranks=2)
        self.assertIn(f"at step {step}", resumed.out)
        self.finished(*options, "run.dir=straight", ranks=2)
        self.assertEqual(len(self.losses()), step + 4)
        self.assertEqual(self.losses(), self.losses("straight"))

    def test_every_stop_signal_saves(self):
        for name in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            with self.subTest(name):
                shutil.rmtree(self.folder / "run", ignore_errors=True)
                stopped = self.stop(name)
                self.assertEqual(stopped.code, STOPPED, stopped)
                self.assertEqual(stopped.err, "", stopped)
                self.assertEqual(self.step_of_latest(), self.lines())
                self.assertDone(self.run_here("verify", "run"))

    def test_save_and_go_on(self):
        for ranks in (None, 2):
            with self.subTest(f"{ranks} ranks"):
                shutil.rmtree(self.folder / "run", ignore_errors=True)
                with self.start("train", "tiny.yaml", *LONG, "checkpoint.every=0", ranks=ranks) as job:
                    job.wait_for(lambda: self.lines() >= 1)
                    job.process.send_signal(signal.SIGUSR2)
                    job.wait_for(self.latest)
                    saved = self.step_of_latest()
                    job.wait_for(lambda: self.lines() >= saved + 3)
                    job.process.send_signal(signal.SIGUSR1)
                    self.assertEqual(job.finish().code, STOPPED)
                self.assertEqual(self.checkpoints()[0], f"step-{saved:08d}")

    def test_a_lost_rank_ends_the_job_and_the_next_run_resumes(self):
        options = ("parallel.expert=2", "checkpoint.every=5", "train.eval_every=0", "parallel.timeout_s=4")
        for signal_name, lost in ((signal.SIGKILL, 1), (signal.SIGSTOP, 1), (signal.SIGSTOP, 0)):
            with self.subTest(f"{signal_name.name} to rank {lost}"):
                shutil.rmtree(self.folder / "run", ignore_errors=True)
                shutil.rmtree(self.folder / "straight", ignore_errors=True)
                with self.start("train", "tiny.yaml", *LONG, *options, ranks=2) as job:
                    job.wait_for(self.latest)
                    ranks = job.ranks()
                    self.assertEqual(len(ranks), 2)
                    os.kill(ranks[lost], signal_name)
                    ended = job.finish(timeout=LIMIT / 2)
                self.assertNotEqual(ended.code, 0, ended)
                if signal_name == signal.SIGSTOP:  # of a dead rank mpirun hears first
                    self.assertEqual(ended.code, 7, ended)
                    self.assertIn(f"rank {lost} does not answer", ended.err)
                    self.assertIn(f"rank {1 - lost} waits in ", ended.err)
                self.assertDone(self.run_here("verify", "run"))
                step = self.step_of_latest()
                resumed = self.finished(f"train.steps={step + 3}", *options, ranks=2)
                self.assertIn(f"at step {step}", resumed.out)
                self.finished(f"train.steps={step + 3}", *options, "run.dir=straight", ranks=2)
                self.assertEqual(self.losses(), self.losses("straight"))

    def test_init_only_saves_step_zero(self):
        self.finished("--init-only")
        self.assertEqual(self.checkpoints(), ["step-00000000"])
        self.assertIn("at step 0", self.finished().out)

    def test_a_diverging_run_says_so(self):
        result = self.train("optim.lr=100", "optim.clip=0", "model.init_std=10", "model.qk_norm=false",
                            "router.z_loss=100", "optim.beta1=0", "optim.beta2=0", "train.steps=200", "checkpoint.every=1")
        self.assertRefused(result, 5, "optim.lr")
        self.assertEqual(self.step_of_latest(), self.lines(), "what was being saved was lost")
        self.assertDone(self.run_here("verify", "run"))


class Alarms(Scenario):
    LOW = "{watch: largest_logit, above: 0, readings: 2, action: %s}"

    def test_stop_saves_and_says_why_once(self):
        stop = (f"health.alarms=[{self.LOW % 'stop'}]", "health.every=2", "checkpoint.every=0")
        stopped = self.train(*stop, ranks=2)
        self.assertRefused(stopped, 76, "an alarm stopped the run at step 4", "block 1: largest_logit = ", "above 0.0",
                           "2 readings in a row")
        self.assertEqual(stopped.err.count("an alarm stopped"), 1, stopped)
        self.assertEqual(self.checkpoints(), ["step-00000004"])
        self.assertDone(self.run_here("verify", "run"))
        self.assertEqual([line["step"] for line in self.metrics() if "router" in line], [2, 4])
        (alarm,) = self.metrics()[-1]["alarms"]
        self.assertEqual((alarm["layer"], alarm["watch"], alarm["action"]), (1, "largest_logit", "stop"))
        self.assertIn("at step 4", self.finished("health.every=0", ranks=2).out, "it was to go on from there")

    def test_log_and_raise_balance_go_on(self):
        for action, part in (("log", ""), ("raise_balance", "the balance coefficients are times 2")):
            with self.subTest(action):
                ended = self.finished(f"health.alarms=[{self.LOW % action}]", "health.every=2", f"run.dir={action}")
                self.assertIn("alarm at step 4: block 1: largest_logit = ", ended.out)
                self.assertIn(part, ended.out)
        self.assertNotEqual(self.metrics("log")[-1]["grad_norm"], self.metrics("raise_balance")[-1]["grad_norm"])

    def test_event_files_lie_beside_the_metrics(self):
        events = lambda: sorted((self.folder / "run").glob("events.out.tfevents.*"))
        self.finished()
        self.assertEqual(len(events()), 1)
        self.finished("train.steps=8")
        self.assertEqual(len(events()), 2, "a resumed run writes a file of its own")
        self.finished("train.steps=9", "train.tensorboard=false")
        self.assertEqual(len(events()), 2)


class AfterTraining(Scenario):
    def test_ranks_do_not_matter(self):
        """The same text, and the same held-out loss to 1e-4, on one rank and two; and what train reported."""
        trained = self.finished("train.eval_batches=0", "router.capacity_factor=0")
        texts, losses = [], []
        for ranks in (None, 1, 2):
            said = self.run_here("generate", "run", "--prompt", "ab", "--tokens", "20", "--seed", "3", ranks=ranks)
            self.assertDone(said)
            self.assertTrue(said.out.startswith("ab"), said)
            texts.append(said.out)
            measured = self.run_here("eval", "run", ranks=ranks)
            self.assertDone(measured)
            losses.append(float(measured.out.split(": ")[1].split()[0]))
        self.assertEqual(texts, texts[:1] * 3)
        self.assertLessEqual(max(losses) - min(losses), 1e-4)
        self.assertAlmostEqual(losses[0], self.metrics()[-1]["val_loss"], delta=1e-4)
        self.assertIn("held-out loss", trained.out)

    def test_the_ranks_are_the_layout(self):
        self.finished()
        for ranks in (None, 2):
            for override in ("parallel.tensor=2", "parallel={expert: 2}"):
                self.assertRefused(self.run_here("eval", "run", override, ranks=ranks), 2, override, "leave this out")
        self.assertDone(self.run_here("eval", "run", "run.precision=bf16"))

    def test_a_path_without_a_checkpoint(self):
        (self.folder / "empty").mkdir()
        for ranks in (None, 2):
            self.assertRefused(self.run_here("eval", "runn", ranks=ranks), 4, "there is no runn")
            self.assertRefused(self.run_here("eval", "empty", ranks=ranks), 4, "no checkpoint in empty", "checkpoint.every")

    def test_eval_of_other_files(self):
        self.finished("data.valid=[]")
        self.assertRefused(self.run_here("eval", "run"), 2, "data.valid", "--data")
        self.assertDone(self.run_here("eval", "run", "--data", "tokens"))
        self.assertRefused(self.run_here("eval", "run", "--data", "nowhere"), 3, "nowhere")


if __name__ == "__main__":
    main()
