"""Damaged copies of files for tests with many of them, shared by tests. Not a test."""

import random

WORDS = (b"nan", b"inf", b"-1", b"0", b"1e400", b"2147483647", b"", b"x", b"1\\2\\3", b"../../x", b"\xff\xfe\0", b"1.5")


def cut(content: bytes, draw: random.Random) -> bytes:
    """Return a file that ends anywhere, at once included."""
    return content[: draw.randrange(len(content))]


def change_bytes(content: bytes, draw: random.Random, up_to: int | None = None) -> bytes:
    """Return a file with one to five bytes changed, all of them before ``up_to``."""
    changed = bytearray(content)
    for _ in range(draw.randrange(1, 6)):
        changed[draw.randrange(min(len(changed), up_to or len(changed)))] = draw.randrange(256)
    return bytes(changed)


def change_length(content: bytes, draw: random.Random, up_to: int) -> bytes:
    """Return a file with four bytes before ``up_to`` that, where they are a length, ask for nothing or too much."""
    at = draw.randrange(min(len(content) - 4, up_to))
    length = draw.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\1"])
    return content[:at] + length + content[at + 4 :]
