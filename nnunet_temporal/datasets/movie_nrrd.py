"""NRRD headers (.nrrd), as http://teem.sourceforge.net/nrrd/format.html describes them: ``field: value`` per line."""

import math
import re
from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.image_io import plausible_interval
from nnunet_temporal.datasets.movie_file import AT_THE_END, HeaderFields, StoredMovie, read_head
from nnunet_temporal.errors import InputError

_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_ENCODINGS = {"raw": False, "gzip": True, "gz": True}
_ENDIANS = {"little": "<", "big": ">"}
_SECONDS_PER_UNIT = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "milliseconds": 1e-3, "us": 1e-6}
_TIME_KINDS = ("time", "list")
_SPACE_KINDS = ("domain", "space", "none", "???")


def read_nrrd(path: Path) -> StoredMovie:
    """Read the header of a movie (x, y, z, t) or (x, y, t).

    Time is the axis of kind ``time`` or ``list`` (3D Slicer puts it first), else the one without a direction in space,
    else the last. The frame interval is None unless a unit of time and a plausible value stand there. Directions are
    not applied: pixels stay in the order they are stored in, and a direction's length is the spacing.

    Raises:
        InputError: The file is unreadable, no NRRD, damaged, in colour, spread over several files, or in an encoding
            other than raw and gzip.
    """
    fields, end = _read_fields(path)
    n_axes = fields.whole("dimension")
    if not 1 <= n_axes <= 16:
        raise InputError(f"{path}: found dimension {n_axes}, expected 4 (x, y, z, t) or 3 (x, y, t)")
    code = str(fields.one_of("type", _TYPES))
    endian = fields.one_of("endian", _ENDIANS, "little" if code.endswith("1") else None)
    compressed = bool(fields.one_of("encoding", _ENCODINGS))
    data, offset = _data_of(fields, end, compressed)
    spacings, has_direction = _spacings(fields, n_axes)
    time = _time_axis(fields, n_axes, has_direction)
    return StoredMovie(
        path=path,
        data=data,
        offset=offset,
        compressed=compressed,
        dtype=np.dtype(f"{endian}{code}"),
        sizes=tuple(fields.numbers("sizes", n_axes, int)),
        spacings=spacings,
        time=time,
        frame_s=_interval(fields, n_axes, time, spacings[time]),
    )


def _read_fields(path: Path) -> tuple[HeaderFields, int]:
    """Return the fields, and where the header ends."""
    content = read_head(path, "a readable NRRD file (.nrrd)")
    if not re.match(rb"NRRD000[1-5]\r?\n", content):
        raise InputError(f"{path}: found {content[:8]!r} at the start, expected an NRRD file (NRRD0001 to NRRD0005)")
    blank = re.search(rb"\r?\n\r?\n", content)
    lines = content[: blank.start() if blank else len(content)].decode("latin-1").splitlines()[1:]
    pairs = (line.partition(":") for line in lines if not line.startswith("#") and ":=" not in line)
    return HeaderFields(path, {key.strip().lower(): value.strip() for key, _, value in pairs}), (
        blank.end() if blank else len(content)
    )


def _data_of(fields: HeaderFields, end: int, compressed: bool) -> tuple[Path, int]:
    """Return the file of the pixels, and where they begin in it."""
    key = "datafile" if "datafile" in fields.fields else "data file"
    name = fields.fields.get(key)
    skipped = fields.whole("byte skip" if "byte skip" in fields.fields else "byteskip", "0")
    lines = fields.whole("line skip" if "line skip" in fields.fields else "lineskip", "0")
    if lines or skipped < AT_THE_END or (compressed and skipped):
        raise InputError(
            f"{fields.path}: found line skip {lines} and byte skip {skipped}, expected pixels after the header"
        )
    if name is None:
        return fields.path, AT_THE_END if skipped == AT_THE_END else end + skipped
    if not name or name.upper().startswith("LIST") or "%" in name:
        raise InputError(f"{fields.path}: found data file {name[:80]!r}, expected the name of one file")
    return fields.path.parent / name, skipped


def _spacings(fields: HeaderFields, n_axes: int) -> tuple[tuple[float | None, ...], list[bool]]:
    """Return the spacing of every axis, None when not stated, and whether each has a direction in space."""
    stated: list[float | None] = [None] * n_axes
    if "spacings" in fields.fields:
        stated = list(fields.numbers("spacings", n_axes, float))
    if "space directions" not in fields.fields:
        return tuple(stated), [True] * n_axes
    text = fields.text("space directions")
    vectors = re.findall(r"none|\([^)]*\)", text)
    if len(vectors) != n_axes:
        raise InputError(f"{fields.path}: found space directions {text[:80]!r}, expected {n_axes}")
    for axis, vector in enumerate(vectors):
        if vector != "none":
            try:
                stated[axis] = math.hypot(*(float(number) for number in vector[1:-1].split(",")))
            except ValueError as error:
                raise InputError(f"{fields.path}: found direction {vector[:80]!r}, expected numbers") from error
    return tuple(stated), [vector != "none" for vector in vectors]


def _time_axis(fields: HeaderFields, n_axes: int, has_direction: list[bool]) -> int:
    kinds = fields.text("kinds", "domain " * n_axes).lower().split()
    colour = [kind for kind in kinds if kind not in (*_TIME_KINDS, *_SPACE_KINDS)]
    if colour or len(kinds) != n_axes:
        raise InputError(
            f"{fields.path}: found kinds {' '.join(kinds)[:80]!r}, expected {n_axes} of {', '.join(_SPACE_KINDS)} and "
            f"{', '.join(_TIME_KINDS)} (grey values)"
        )
    times = [axis for axis, kind in enumerate(kinds) if kind in _TIME_KINDS]
    times = times or [axis for axis, has in enumerate(has_direction) if not has] or [n_axes - 1]
    if len(times) > 1:
        raise InputError(f"{fields.path}: found {len(times)} axes of time, expected one")
    return times[0]


def _interval(fields: HeaderFields, n_axes: int, time: int, spacing: float | None) -> float | None:
    for key in ("units", "space units"):
        units = re.findall(r'"([^"]*)"', fields.text(key, ""))
        if len(units) == n_axes and units[time] in _SECONDS_PER_UNIT and spacing is not None:
            return plausible_interval(spacing * _SECONDS_PER_UNIT[units[time]])
    return None
