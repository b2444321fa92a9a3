"""MetaImage headers (.mha, .mhd), as ITK's documentation of the format describes them: ``Key = Value`` per line."""

from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.movie_file import AT_THE_END, HeaderFields, StoredMovie, read_head
from nnunet_temporal.errors import InputError

_TYPES = {
    "met_char": "i1",
    "met_uchar": "u1",
    "met_short": "i2",
    "met_ushort": "u2",
    "met_int": "i4",
    "met_uint": "u4",
    "met_long": "i4",
    "met_ulong": "u4",
    "met_long_long": "i8",
    "met_ulong_long": "u8",
    "met_float": "f4",
    "met_double": "f8",
}
_TRUTHS = {"true": True, "false": False, "1": True, "0": False, "t": True, "f": False}
_LAST_KEY = "elementdatafile"


def read_meta_image(path: Path) -> StoredMovie:
    """Read the header of a movie (x, y, z, t) or (x, y, t).

    The format knows no unit of time, so the frame interval is unknown. Directions are not applied: pixels stay in the
    order they are stored in.

    Raises:
        InputError: The file is unreadable, no MetaImage, damaged, in colour, or spread over several files.
    """
    fields, end = _read_fields(path)
    n_axes = fields.whole("ndims")
    if not 1 <= n_axes <= 16:
        raise InputError(f"{path}: found NDims {n_axes}, expected 4 (x, y, z, t) or 3 (x, y, t)")
    if (channels := fields.whole("elementnumberofchannels", "1")) != 1:
        raise InputError(f"{path}: found {channels} channels, expected one number per pixel (grey values)")
    if not fields.one_of("binarydata", _TRUTHS, "True"):
        raise InputError(f"{path}: found pixels written as text, expected BinaryData = True")
    name = fields.text(_LAST_KEY)
    is_local = name.upper() == "LOCAL"
    if name.upper().startswith("LIST") or "%" in name or not name:
        raise InputError(f"{path}: found ElementDataFile {name[:80]!r}, expected LOCAL or the name of one file")
    order = "elementbyteordermsb" if "elementbyteordermsb" in fields.fields else "binarydatabyteordermsb"
    big_endian = fields.one_of(order, _TRUTHS, "False")
    compressed = bool(fields.one_of("compresseddata", _TRUTHS, "False"))
    skipped = fields.whole("headersize", "0")
    if skipped < AT_THE_END or (compressed and skipped == AT_THE_END):
        raise InputError(f"{path}: found HeaderSize {skipped}, expected 0 or more, or -1 for pixels not compressed")
    spacing = "elementspacing" if "elementspacing" in fields.fields else "elementsize"
    stated = spacing in fields.fields
    return StoredMovie(
        path=path,
        data=path if is_local else path.parent / name,
        offset=end if is_local else skipped,
        compressed=compressed,
        dtype=np.dtype((">" if big_endian else "<") + str(fields.one_of("elementtype", _TYPES))),
        sizes=tuple(fields.numbers("dimsize", n_axes, int)),
        spacings=tuple(fields.numbers(spacing, n_axes, float)) if stated else (None,) * n_axes,
        time=n_axes - 1,
        frame_s=None,
    )


def _read_fields(path: Path) -> tuple[HeaderFields, int]:
    """Return the fields, and where the header ends."""
    content = read_head(path, "a readable MetaImage file (.mha, .mhd)")
    fields, start = {}, 0
    while _LAST_KEY not in fields:
        line, found, _ = content[start:].partition(b"\n")
        key, equals, value = line.decode("latin-1").partition("=")
        if not equals or not (found or key.strip().lower() == _LAST_KEY):
            raise InputError(
                f"{path}: expected a MetaImage file (.mha, .mhd), lines 'Key = Value' up to 'ElementDataFile'; found "
                f"{line[:40]!r}"
            )
        fields[key.strip().lower()] = value.strip()
        start += len(line) + 1
    return HeaderFields(path, fields), start
