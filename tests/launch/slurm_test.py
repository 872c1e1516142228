#!/usr/bin/env python3
"""launch/slurm.sbatch with stand-ins for SLURM's commands.  slurm_test.py PROGRAM ROOT [unittest's arguments]"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "app"))

from switchyard_run import PROGRAM, ROOT, Result, Scenario, environment, main

JOB = ROOT / "launch/slurm.sbatch"
STOPPED = 75
REQUEUED = ["requeue 42"]

# srun writes down how it was called and runs $STEP, or a rank of the program.
SRUN = r"""
printf '%s\n' "$@" >srun-arguments
[ -z "${STEP:-}" ] || exec bash -c "$STEP"
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""
SCONTROL = r"""
[ "$1" != show ] || { echo "JobId=42 JobState=${STATE:-RUNNING} Reason=None"; exit; }
echo "$@" >>scontrol-asked
[ -z "${NO_REQUEUE:-}" ] || { echo "Requested operation is presently disabled" >&2; exit 1; }
"""
UNTIL_TOLD = "trap 'exit 75' USR1; touch started; for i in {1..500}; do sleep 0.02; done"


class Slurm(Scenario):
    def setUp(self):
        super().setUp()
        for name, body in (("srun", SRUN), ("scontrol", SCONTROL)):
            path = self.folder / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("#!/usr/bin/env bash" + body)
            path.chmod(0o755)

    def start_job(self, *arguments, **environ):
        slurm = {"SLURM_JOB_ID": "42", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_CPUS_PER_TASK": "12",
                 "SLURM_NTASKS_PER_NODE": "4", "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        given = {**environment(), **slurm, **environ}
        spool = self.folder / "slurm_script"  # where SLURM runs a copy of what was submitted
        shutil.copy(JOB, spool)
        return subprocess.Popen([spool, *arguments], cwd=self.folder, text=True, stdin=subprocess.DEVNULL,
                                env={name: value for name, value in given.items() if value is not None},
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def finish(self, job):
        try:
            out, err = job.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            job.kill()
            raise
        return Result(job.returncode, out, err, 0)

    def job(self, *arguments, **environ):
        return self.finish(self.start_job(*arguments, **environ))

    def told(self, *signals, **environ):
        """A job whose batch shell hears these signals once its step runs."""
        job = self.start_job("tiny.yaml", **{"STEP": UNTIL_TOLD, **environ})
        self.wait_for(lambda: (self.folder / "started").exists())
        for name in signals:
            job.send_signal(name)
        return self.finish(job)

    def wait_for(self, condition):
        end = time.monotonic() + 60
        while not condition():
            self.assertLess(time.monotonic(), end, "waited in vain")
            time.sleep(0.01)

    def asked(self):
        path = self.folder / "scontrol-asked"
        return path.read_text().splitlines() if path.exists() else []

    def test_what_srun_is_asked_for(self):
        self.assertEqual(self.job("tiny.yaml", "run.dir=a b", STEP="exit 0").code, 0)
        arguments = (self.folder / "srun-arguments").read_text().splitlines()
        self.assertEqual(arguments[-4:], [str(PROGRAM), "train", "tiny.yaml", "run.dir=a b"])
        self.assertEqual(set(arguments[:-4]), {"--mpi=pmix", "--cpus-per-task=12", "--cpu-bind=cores",
                                               "--distribution=block:block", "--kill-on-bad-exit=1"})
        self.job("tiny.yaml", STEP="exit 0", SLURM_MPI_TYPE="pmix_v4")
        self.assertIn("--mpi=pmix_v4\n", (self.folder / "srun-arguments").read_text())

    def test_a_task_of_an_array_reads_its_number(self):
        done = self.job("runs/%a.yaml", "run.dir=runs/%a", STEP="exit 3", SLURM_ARRAY_TASK_ID="7")
        arguments = (self.folder / "srun-arguments").read_text().splitlines()
        self.assertEqual(arguments[-2:], ["runs/7.yaml", "run.dir=runs/7"])
        self.assertRegex(done.err, r"\nslurm.sbatch: .* ended with exit code 3\n$")
        self.job("runs/%a.yaml", STEP="exit 0")
        self.assertEqual((self.folder / "srun-arguments").read_text().splitlines()[-1], "runs/%a.yaml")

    def test_what_sbatch_is_asked_for(self):
        asked = [line.split()[1] for line in JOB.read_text().splitlines() if line.startswith("#SBATCH")]
        for option in ("--signal=B:USR1@300", "--requeue", "--open-mode=append"):
            self.assertIn(option, asked)
        # sbatch reads these lines up to the first command.
        text = JOB.read_text()
        self.assertLess(text.rindex("#SBATCH"), text.index("program="))

    def test_the_limit_saves_requeues_and_resumes(self):
        """As SLURM does it: SIGUSR1 to the batch shell, then the same job again."""
        metrics = self.folder / "run/metrics.jsonl"
        options = ("train.steps=1000000", "train.eval_every=0", "checkpoint.every=0")
        job = self.start_job("tiny.yaml", *options)
        self.wait_for(lambda: metrics.exists() and metrics.read_bytes().count(b"\n") >= 3)
        job.send_signal(signal.SIGUSR1)
        stopped = self.finish(job)
        self.assertEqual((stopped.code, self.asked()), (STOPPED, REQUEUED), stopped)
        step = len(self.metrics())
        self.assertEqual(self.latest(), f"step-{step:08d}")
        resumed = self.job("tiny.yaml", *options, f"train.steps={step + 2}", SLURM_RESTART_COUNT="1")
        self.assertEqual((resumed.code, self.asked()), (0, REQUEUED), resumed)
        self.assertIn("requeued 1 times", resumed.err)
        self.assertIn(f"at step {step}", resumed.out)
        self.assertEqual([each["step"] for each in self.metrics()], list(range(1, step + 3)))

    def test_only_a_stop_is_requeued(self):
        for code in (0, 1, 2, 5, 7, 74, 76, 137, 143):
            self.assertEqual(self.job("tiny.yaml", STEP=f"exit {code}").code, code)
            self.assertEqual(self.asked(), [])
        self.assertEqual(self.job("tiny.yaml", STEP="exit 75").code, STOPPED)
        self.assertEqual(self.asked(), REQUEUED)

    def test_an_error_after_the_signal_is_not_requeued(self):
        failed = self.told(signal.SIGUSR1, STEP=UNTIL_TOLD.replace("75", "3"))
        self.assertEqual((failed.code, self.asked()), (3, []), failed)

    def test_a_rank_that_did_not_listen_yet_is_requeued(self):
        killed = self.told(signal.SIGUSR1, STEP=UNTIL_TOLD.replace("75", "138"))
        self.assertEqual((killed.code, self.asked()), (STOPPED, REQUEUED), killed)
        self.assertEqual(self.job("tiny.yaml", STEP="exit 138").code, 138)

    def test_preempted(self):
        """SIGTERM with time left, the job still running: it saves and goes back to the queue."""
        stopped = self.told(signal.SIGTERM)
        self.assertEqual((stopped.code, self.asked()), (STOPPED, REQUEUED), stopped)

    def test_several_signals(self):
        stopped = self.told(signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR1)
        self.assertEqual((stopped.code, self.asked()), (STOPPED, REQUEUED), stopped)

    def test_a_cancelled_job_is_not_requeued(self):
        for state in ("COMPLETING", "CANCELLED", "TIMEOUT"):
            (self.folder / "started").unlink(missing_ok=True)
            stopped = self.told(signal.SIGTERM, STATE=state)
            self.assertEqual((stopped.code, self.asked()), (STOPPED, []), stopped)
            self.assertIn(state, stopped.err)

    def test_requeueing_has_a_limit(self):
        stopped = self.job("tiny.yaml", STEP="exit 75", MAX_REQUEUES="3", SLURM_RESTART_COUNT="3")
        self.assertEqual((stopped.code, self.asked()), (STOPPED, []), stopped)
        self.assertIn("MAX_REQUEUES", stopped.err)
        self.job("tiny.yaml", STEP="exit 75", MAX_REQUEUES="3", SLURM_RESTART_COUNT="2")
        self.assertEqual(self.asked(), REQUEUED)

    def test_where_slurm_does_not_requeue(self):
        stopped = self.job("tiny.yaml", STEP="exit 75", NO_REQUEUE="1")
        self.assertEqual(stopped.code, STOPPED, stopped)
        self.assertIn("SLURM does not requeue it: the same sbatch command resumes", stopped.err)

    def test_save_and_go_on(self):
        job = self.start_job("tiny.yaml", STEP=UNTIL_TOLD.replace("exit 75", "exit 9").replace("USR1", "USR2"))
        self.wait_for(lambda: (self.folder / "started").exists())
        job.send_signal(signal.SIGUSR2)
        self.assertEqual(self.finish(job).code, 9)

    def test_ranks_and_gpus_that_differ(self):
        for gpus, warned in (("4", False), ("8", True), (None, False)):
            self.assertEqual("warning" in self.job("tiny.yaml", STEP="exit 0", SLURM_GPUS_ON_NODE=gpus).err, warned)

    def test_refusals(self):
        for arguments, environ, word in ((("tiny.yaml",), {"SLURM_JOB_ID": None}, "submit it"), ((), {}, "configuration"),
                                         (("tiny.yaml",), {"SWITCHYARD": "nowhere/switchyard"}, "nowhere/switchyard")):
            refused = self.job(*arguments, **environ)
            self.assertEqual((refused.code, refused.err.count("\n")), (2, 1), refused)
            self.assertIn(word, refused.err)
            self.assertFalse((self.folder / "srun-arguments").exists())


if __name__ == "__main__":
    main()
