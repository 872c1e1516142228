"""Megatron-LM token files (.bin and .idx), one document in one file."""

import struct

import numpy as np

MAGIC = b"MMIDIDX\0\0"
DTYPES = {4: np.int32, 8: np.uint16}
UINT16_VOCABULARY = 65500  # Megatron stores smaller vocabularies as uint16, others as int32


def write_tokens(prefix, tokens, vocab_size):
    code = 8 if vocab_size < UINT16_VOCABULARY else 4
    tokens.astype(DTYPES[code]).tofile(f"{prefix}.bin")
    with open(f"{prefix}.idx", "wb") as file:
        file.write(MAGIC + struct.pack("<QBQQ", 1, code, 1, 2))  # version, dtype, sequences, documents + 1
        file.write(struct.pack("<i", len(tokens)))  # length of each sequence
        file.write(struct.pack("<q", 0))  # its first byte in .bin
        file.write(struct.pack("<2q", 0, 1))  # the sequences at which documents start


def read_tokens(prefix):
    with open(f"{prefix}.idx", "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise SystemExit(f"{prefix}.idx: not a Megatron index")
        _, code = struct.unpack("<QB", file.read(9))
    return np.memmap(f"{prefix}.bin", dtype=DTYPES[code], mode="r")
