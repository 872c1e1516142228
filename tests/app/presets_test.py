#!/usr/bin/env python3
"""The presets of configs/: their sizes beside the published ones, and plans of them."""

import decimal
import json
import re

from switchyard_run import ROOT, Scenario, main

# Parameters as printed, total and active. A None is not published, or, glam/1.7b-32e's total, misprinted: 20B, where
# the paper's other rows grow by 0.40 B an expert and make 14 B of 32.
PUBLISHED = {
    # Du et al., arXiv 2112.06905, table 4
    "glam/0.1b": ("130M", "130M"),
    "glam/0.1b-64e": ("1.9B", "145M"),
    "glam/1.7b": ("1.7B", "1.700B"),
    "glam/1.7b-32e": (None, "1.878B"),
    "glam/1.7b-64e": ("27B", "1.879B"),
    "glam/1.7b-128e": ("53B", "1.881B"),
    "glam/1.7b-256e": ("105B", "1.886B"),
    "glam/8b": ("8.7B", "8.7B"),
    "glam/8b-64e": ("143B", "9.8B"),
    "glam/137b": ("137B", "137B"),
    "glam/64b-64e": ("1.2T", "96.6B"),
    # Fedus et al., arXiv 2101.03961, table 9
    "switch/base": ("7B", None),
    "switch/large": ("26B", None),
    "switch/xxl": ("395B", None),
    "switch/c": ("1571B", None),
    # Jiang et al., arXiv 2401.04088; DeepSeek-AI, arXiv 2405.04434
    "mixtral/8x7b": ("46.7B", "12.9B"),
    "deepseek/v2": ("236B", "21B"),
}
UNITS = {"M": 10**6, "B": 10**9, "T": 10**12}


def tolerance(printed):
    """A number and how far one may be from it: 2 %, or half of its last printed digit where that is more, as numbers
    that are equal may differ by that much when one of them is rounded."""
    digits, unit = decimal.Decimal(printed[:-1]), UNITS[printed[-1]]
    half_digit = decimal.Decimal(1).scaleb(digits.as_tuple().exponent) / 2
    return float(digits) * unit, max(0.02 * float(digits), float(half_digit)) * unit


def row(name, parameters):
    """Of docs/presets.md."""
    cells = [f"[{name}](../configs/{name}.yaml)"]
    for kind, printed in zip(("total", "active"), PUBLISHED[name]):
        cells += [f"{parameters[kind] / 1e9:,.3f}", printed or "-"]
    return f"| {' | '.join(cells)} |"


class Presets(Scenario):
    def told(self, *arguments):
        result = self.run_here(*arguments, "--json")
        self.assertDone(result)
        return json.loads(result.out)

    def inspected(self, name):
        return self.told("inspect", ROOT / f"configs/{name}.yaml")

    def test_each_has_its_published_size(self):
        for name, published in PUBLISHED.items():
            parameters = self.inspected(name)["parameters"]
            for kind, printed in zip(("total", "active"), published):
                if printed is None:
                    continue
                with self.subTest(name, kind=kind):
                    number, far = tolerance(printed)
                    self.assertAlmostEqual(parameters[kind], number, delta=far)

    def test_none_is_left_out(self):
        files = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").glob("**/*.yaml")}
        presets = {str(path.with_suffix("")) for path in files if len(path.parts) > 1 and path.parts[0] != "experiments"}
        self.assertEqual(presets, set(PUBLISHED))

    def test_each_layout_fits_where_its_first_lines_plan_it(self):
        for name in PUBLISHED:
            with self.subTest(name):
                path = f"configs/{name}.yaml"
                text = (ROOT / path).read_text()
                command = re.search(rf"^#   switchyard (plan {re.escape(path)} --ranks \d+ --device \w+)$", text, re.M)
                self.assertIsNotNone(command, "wanted its plan in the comment")
                arguments = [ROOT / word if word == path else word for word in command.group(1).split()]
                planned, inspected = self.told(*arguments), self.inspected(name)
                self.assertIsNotNone(planned["configured"], planned.get("refusal"))
                self.assertTrue(planned["configured"]["fits"])
                self.assertEqual(planned["ranks"] % inspected["ranks"], 0)
                self.assertEqual(planned["parameters"], inspected["parameters"]["total"])

    def test_the_page_tells_what_the_program_counts(self):
        page = (ROOT / "docs/presets.md").read_text().splitlines()
        rows = [row(name, self.inspected(name)["parameters"]) for name in PUBLISHED]
        self.assertEqual([line for line in page if line.startswith("| [")], rows)


if __name__ == "__main__":
    main()
