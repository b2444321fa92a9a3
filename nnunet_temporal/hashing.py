"""What tells whether files are the same: SHA-256 of their content."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

_CHUNK = 1 << 20


def hash_file(file: Path) -> str:
    """Return the SHA-256 of the content of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def hash_files(files: Iterable[Path]) -> str:
    """Return the SHA-256 of the lines "name, SHA-256 of the content" of files, sorted, wherever they lie."""
    lines = "\n".join(sorted(f"{file.name} {hash_file(file)}" for file in files))
    return hashlib.sha256(os.fsencode(lines)).hexdigest()
