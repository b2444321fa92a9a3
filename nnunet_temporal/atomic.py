"""Files that are either whole or absent: written under a temporary name, renamed into place, and refused if broken."""

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_temporal.errors import InputError

# The mask can only be read by setting it: two threads at once would leave it at 0.
_UMASK_LOCK = threading.Lock()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block succeeds, delete it when not.

    The temporary name keeps all suffixes of ``path``, because image writers choose the format by suffix.

    Args:
        path: The file to write. Its folder must exist.

    Yields:
        The path the block has to write to.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial_", suffix=path.name)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; the finished file gets the permissions any new file would have.
        with _UMASK_LOCK:
            umask = os.umask(0)
            os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; rename it to ``path`` when the block succeeds, delete it when not.

    Args:
        path: The folder to make. Folders above it are made when missing.

    Yields:
        The folder the block has to write to.

    Raises:
        InputError: ``path`` exists already.
    """
    if path.exists():
        raise InputError(f"{path}: exists already, expected a new folder; remove it or choose another -o")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial_") as outer:
        # One level down, because the outer folder is private and is deleted in any case.
        inner = Path(outer) / path.name
        inner.mkdir()
        yield inner
        inner.rename(path)


def write_json(data: Any, path: Path) -> None:  # noqa: ANN401 - JSON is any nesting of plain types
    """Write ``data`` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def read_json_object(path: Path, advice: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: An existing file.
        advice: What to do about a broken one, a sentence.

    Raises:
        InputError: The file is no JSON or no object, as other programs leave it when they are stopped while writing.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected JSON, but it cannot be read: {error}. {advice}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {content!r}. {advice}")
    return content
