#!/usr/bin/env python3
"""`switchyard layouts`: every layout of some ranks beside one rank, as threads and under mpirun."""

import json

from switchyard_run import ROOT, Scenario, main

CONFIG = ROOT / "configs/layouts.yaml"


class Layouts(Scenario):
    def layouts(self, *arguments, **options):
        return self.run_here("layouts", CONFIG, "model.n_layers=2", "--steps", "2", *arguments, **options)

    def test_as_threads(self):
        result = self.layouts("--ranks", "3")
        self.assertDone(result)
        self.assertIn("expert_tensor", result.out.splitlines()[0])
        self.assertIn("all within rounding", result.out.splitlines()[-1])
        self.assertEqual(len(result.out.splitlines()), 1 + 1 + 2 * 7 + 1)  # no layout of 3 ranks divides 16 samples

    def test_for_programs_and_on_ranks(self):
        result = self.layouts("--json", "run.threads=1", ranks=2)
        self.assertDone(result)
        told = json.loads(result.out)
        self.assertTrue(told["good"])
        self.assertEqual({(row["pipeline"], row["tensor"], row["expert"], row["expert_tensor"], row["shard_optimizer"])
                          for row in told["layouts"]},
                         {(*layout, sharded) for sharded in (False, True)
                          for layout in ((1, 1, 1, 1), (1, 1, 2, 1), (1, 1, 1, 2), (1, 2, 1, 1), (1, 2, 2, 1), (1, 2, 1, 2),
                                         (2, 1, 1, 1))})
        for row in told["layouts"]:
            self.assertTrue(row["good"])
            self.assertGreater(row["gradient"], 0)  # another order of sums shows, and only that
            self.assertLess(row["gradient"], 1e-5)
            self.assertEqual(row["routing"], 0)

    def test_on_the_configuration_s_own_data(self):
        result = self.run_here("layouts", "tiny.yaml", "--ranks", "2", "--steps", "1")
        self.assertDone(result)

    def test_mistakes(self):
        self.assertRefused(self.layouts("--ranks", "0"), 2, "--ranks")
        self.assertRefused(self.layouts("model.heads=3"), 2, "did you mean")
        self.assertRefused(self.layouts("--micro-batches", "5"), 2, "16 samples", "5 parts")


if __name__ == "__main__":
    main()
