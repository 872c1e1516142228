"""An experiment file: a base configuration, arms that differ from it, seeds, and what is held equal."""

import dataclasses
import difflib
import itertools
import pathlib
import re

try:
    import yaml
except ImportError:
    raise SystemExit("error: Python's YAML reader is not there. To install it:  apt-get install python3-yaml") from None

QUANTITIES = ("flops", "active_parameters", "tokens")


class ExperimentError(Exception):
    """What is wrong with an experiment, for the user: a line each."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train. Values of the configuration are text, exactly as the file has it: 1e-4 stays 1e-4."""

    name: str  # of its folder
    label: str  # in the report
    family: str  # the entry under `arms` that it came from
    place: str  # FILE:LINE:COLUMN of that
    values: dict[str, str]  # key of the configuration -> YAML
    axes: dict[str, str]  # those of `values` in which it differs from its family


@dataclasses.dataclass(frozen=True)
class Experiment:
    name: str
    title: str
    path: pathlib.Path
    overrides: list[str]  # of the command line; in every arm's values too
    base: pathlib.Path
    corpus: dict[str, str]  # launch/corpus.py's name -> the folder that it goes to
    seeds: list[int]
    reference: str  # the arm that the others are made equal to and compared with
    equal: str  # one of QUANTITIES
    adjust: str  # the key that the other arms give way in
    multiple: int  # of which that key stays
    arms: list[Arm]
    compare: list[tuple[str, str]]  # pairs of arms, beside every arm with the reference
    analyze: int = 0  # tokens of each held-out domain whose experts are looked at; 0: none

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)


class Reader:
    """Walks the nodes of a YAML file and keeps every complaint with its place."""

    def __init__(self, path: pathlib.Path):
        self.path, self.complaints = path, []

    def place(self, node) -> str:
        return f"{self.path}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    def complain(self, node, what: str):
        self.complaints.append(f"{self.place(node)}: {what}")

    def entries(self, node, what: str, known=None) -> dict:
        """A mapping's nodes by key; `known` are the keys it may have."""
        if not isinstance(node, yaml.MappingNode):
            self.complain(node, f"{what}: wanted keys and values")
            return {}
        found = {}
        for key_node, value in node.value:
            key = key_node.value
            if key in found:
                self.complain(key_node, f"{key}: the key is there twice")
            elif known is not None and key not in known:
                near = difflib.get_close_matches(key, known, 1, 0.5)
                hint = f"did you mean {near[0]}?" if near else f"{what} knows {', '.join(known)}"
                self.complain(key_node, f"{key}: unknown key; {hint}")
            else:
                found[key] = value
        return found

    def items(self, node, what: str) -> list:
        if isinstance(node, yaml.SequenceNode) and node.value:
            return node.value
        self.complain(node, f"{what}: wanted a list with something in it")
        return []

    def text(self, node, what: str) -> str:
        if isinstance(node, yaml.ScalarNode) and node.value:
            return node.value
        self.complain(node, f"{what}: wanted text")
        return ""

    def number(self, node, what: str, least: int) -> int:
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        if re.fullmatch(r"\d{1,18}", text) and int(text) >= least:
            return int(text)
        self.complain(node, f"{what}: wanted a whole number, {least} or more")
        return least

    def choice(self, node, what: str, values) -> str:
        text = self.text(node, what)
        if text and text not in values:
            near = difflib.get_close_matches(text, values, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"wanted one of {', '.join(values)}"
            self.complain(node, f"{what}: {text}: {hint}")
        return text

    def values(self, node, what: str, prefix="") -> dict[str, str]:
        """Dotted keys of the configuration to YAML text; sections may be written as keys with dots, or nested."""
        values = {}
        for key, value in self.entries(node, what).items():
            if isinstance(value, yaml.MappingNode):
                values |= self.values(value, what, f"{prefix}{key}.")
            else:
                values[prefix + key] = flow(value)
        return values


def flow(node) -> str:
    """The node on one line, its plain scalars as they were written."""
    if isinstance(node, yaml.SequenceNode):
        return "[" + ", ".join(map(flow, node.value)) + "]"
    if isinstance(node, yaml.MappingNode):
        return "{" + ", ".join(f"{flow(key)}: {flow(value)}" for key, value in node.value) + "}"
    return node.value if node.style is None else "'" + node.value.replace("'", "''") + "'"


ARM_KEYS = ("label", "set", "over")
KEYS = ("title", "base", "corpus", "set", "seeds", "reference", "equal", "adjust", "multiple", "arms", "compare", "analyze")
REQUIRED = ("base", "arms", "reference", "equal")


def family_of(reader: Reader, family: str, node, common: dict[str, str]) -> list[Arm]:
    """An entry under `arms`: one arm, or one for each combination of the values of its axes (`over`)."""
    keys = reader.entries(node, f"arm {family}", ARM_KEYS)
    values = common | (reader.values(keys["set"], "set") if "set" in keys else {})
    axes = {}
    for key, axis in reader.entries(keys["over"], "over").items() if "over" in keys else ():
        axes[key] = [flow(item) for item in reader.items(axis, key)]
    label = reader.text(keys["label"], "label") if "label" in keys else ""
    arms = []
    for combination in itertools.product(*axes.values()):
        chosen = dict(zip(axes, combination))
        name = "-".join([family, *combination])
        own = values | chosen
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            reader.complain(node, f"{name}: the arm names a folder: letters, digits, . _ and - only")
        for key in re.findall(r"{([^}]*)}", label):
            if key not in own:
                reader.complain(keys["label"], f"label: {{{key}}} is no key that the arm sets")
        written = re.sub(r"{([^}]*)}", lambda m: own.get(m[1], ""), label) or name
        arms.append(Arm(name, written, family, reader.place(node), own, chosen))
    return arms


def root_of(path: pathlib.Path):
    """The node of a YAML file."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(f"cannot read the experiment {path}: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        raise ExperimentError(f"{place}: {getattr(error, 'problem', error)}") from error
    if root is None:
        raise ExperimentError(f"{path}: the experiment is empty")
    return root


def arms_of(reader: Reader, node, common: dict[str, str], overrides: list[str]) -> list[Arm]:
    """All arms; `overrides` have the last word in each."""
    arms = [arm for family, entry in reader.entries(node, "arms").items() for arm in family_of(reader, family, entry, common)]
    names = [arm.name for arm in arms]
    for name in sorted({name for name in names if names.count(name) > 1}):
        reader.complain(node, f"{name}: two arms of that name")
    final = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            reader.complaints.append(f"command line: {override}: wanted section.key=value")
        final[key] = value
    arms = [dataclasses.replace(arm, values=arm.values | final) for arm in arms]
    for arm in arms:
        for key in ("run.dir", "run.seed"):
            if key in arm.values:
                reader.complaints.append(f"{arm.place}: {key}: the experiment gives every run its own")
    return arms


def seeds_of(reader: Reader, node) -> list[int]:
    seeds = [reader.number(item, "seeds", 0) for item in reader.items(node, "seeds")]
    for seed in sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        reader.complain(node, f"seeds: {seed} is there twice")
    return seeds


def pairs_of(reader: Reader, node, names: list[str]) -> list[tuple[str, str]]:
    """Pairs of arms to compare."""
    pairs = []
    for item in reader.items(node, "compare"):
        pair = [reader.choice(name, "compare", names) for name in reader.items(item, "compare")]
        if len(pair) != 2:
            reader.complain(item, "compare: wanted pairs of arms")
        pairs.append(tuple(pair))
    return pairs


def read_experiment(path: pathlib.Path, overrides: list[str] = ()) -> Experiment:
    """The experiment in a file, with `overrides` (section.key=value) in every arm's configuration."""
    reader, root = Reader(path), root_of(path)
    keys = reader.entries(root, "an experiment", KEYS)
    reader.complaints += [f"{path}: {key}: is missing" for key in REQUIRED if key not in keys]

    def given(key, read, default):
        return read(keys[key], key) if key in keys else default

    common = given("set", reader.values, {})
    arms = given("arms", lambda node, _: arms_of(reader, node, common, overrides), [])
    names = [arm.name for arm in arms]
    equal = given("equal", lambda node, key: reader.choice(node, key, QUANTITIES), "")
    adjust = given("adjust", reader.text, "moe.d_ff" if equal == "active_parameters" else "train.steps")
    base = given("base", reader.text, "")
    if base and not (path.parent / base).is_file():
        reader.complain(keys["base"], f"base: there is no {path.parent / base}")
    experiment = Experiment(
        name=path.stem,
        title=given("title", reader.text, path.stem),
        path=path,
        overrides=list(overrides),
        base=path.parent / base,
        corpus=given("corpus", lambda node, what: {name: reader.text(to, name) for name, to in reader.entries(node, what).items()}, {}),
        seeds=given("seeds", lambda node, _: seeds_of(reader, node), []) or [1],
        reference=given("reference", lambda node, key: reader.choice(node, key, names), ""),
        equal=equal,
        adjust=adjust,
        multiple=given("multiple", lambda node, key: reader.number(node, key, 1), 1 if adjust == "train.steps" else 32),
        arms=arms,
        compare=given("compare", lambda node, _: pairs_of(reader, node, names), []),
        analyze=given("analyze", lambda node, key: reader.number(node, key, 0), 0),
    )
    if reader.complaints:
        raise ExperimentError("\n".join(reader.complaints))
    return experiment
