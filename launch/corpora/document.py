"""One text of a corpus, and how its bytes become text."""

import codecs
import hashlib
from typing import NamedTuple


class CorpusError(Exception):
    """What went wrong and what to do about it, for the user."""


class Document(NamedTuple):
    domain: str
    title: str
    text: str
    held_out: bool


def repair(error: UnicodeError) -> tuple[str, int]:
    """A byte that is not UTF-8 was written on a machine with Windows-1252, or else ISO-8859-1."""
    byte = error.object[error.start : error.start + 1]
    try:
        return byte.decode("cp1252"), error.start + 1
    except UnicodeDecodeError:
        return byte.decode("latin-1"), error.start + 1


codecs.register_error("repair", repair)


def decode(raw: bytes) -> str:
    return raw.decode("utf-8", errors="repair").replace("\r\n", "\n").strip("\n") + "\n"


def held_out(domain: str, title: str) -> bool:
    """One document in 64, by its name alone: the same documents whatever the version of the package."""
    return hashlib.sha256(f"{domain}/{title}".encode()).digest()[0] % 64 == 0
