"""What the fields of a sequence may hold."""

import math
import re
from collections.abc import Callable


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value) and not re.search(r"[/\\]", value)


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_frames(value: object) -> bool:
    return isinstance(value, tuple) and all(map(_is_index, value)) and list(value) == sorted(set(value))


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _or_none(is_valid: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or is_valid(value)


_OPTIONAL_FRAME = (_or_none(_is_index), "a frame index, 0 or more, or null")
FIELD_RULES: dict[str, tuple[Callable[[object], bool], str]] = {
    "case": (_is_name, "a non-empty text without slashes"),
    "study": (_is_name, "a non-empty text without slashes"),
    "n_frames": (lambda value: _is_index(value) and value != 0, "a whole number, 1 or more"),
    "labelled_frames": (_are_frames, "strictly increasing frame indices, 0 or more"),
    "slice": (_or_none(_is_index), "a slice index, 0 or more, or null"),
    "view": (_or_none(_is_name), "a non-empty text without slashes, or null"),
    "ed": _OPTIONAL_FRAME,
    "es": _OPTIONAL_FRAME,
    "cyclic": (lambda value: isinstance(value, bool), "true or false"),
    "frame_interval_s": (_or_none(_is_length), "a number of seconds above 0, or null"),
    "slice_spacing_mm": (_or_none(_is_length), "a number of mm above 0, or null"),
    "pixel_spacing_known": (lambda value: isinstance(value, bool), "true or false"),
    "source": (lambda value: isinstance(value, str), "a text"),
}
"""Field of a ``Sequence`` to what tells whether a value is valid, and what is expected, in words."""
