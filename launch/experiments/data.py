"""The corpora that an experiment names, made and tokenised by domain where they are not there yet."""

import pathlib
import subprocess
import sys

from experiments.sizes import Program
from experiments.spec import ExperimentError

CORPUS = pathlib.Path(__file__).resolve().parents[1] / "corpus.py"


def prepare(corpus: str, folder: pathlib.Path, program: Program, say):
    """Makes DIR by launch/corpus.py, and beside each of its .jsonl files the token file of the same name."""
    if subprocess.run([sys.executable, CORPUS, corpus, "--out", folder], stdout=sys.stderr).returncode != 0:
        raise ExperimentError(f"the corpus {corpus} could not be made")
    for source in sorted([*folder.glob("*.jsonl"), *folder.glob("*/*.jsonl")]):
        index = source.with_suffix(".idx")
        if index.exists() and index.stat().st_mtime >= source.stat().st_mtime:
            continue
        say(f"tokenising {source}")
        answer = program.ask("tokenize", source, "--out", source.with_suffix(""))
        if answer.returncode != 0:
            raise ExperimentError(answer.stderr.strip().removeprefix("error: "))
