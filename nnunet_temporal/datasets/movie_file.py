"""A movie as a file with a text header describes it, NRRD or MetaImage: where its pixels lie and what they mean.

Read here and not by SimpleITK, which gives random pixels for a damaged compressed MetaImage, crashes on some damaged
headers, and refuses NRRD whose time axis lies outside of space.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.image_io import DEFLATE_AT_MOST, ImageHeader, Spacing, positive_length
from nnunet_temporal.errors import InputError

HEADER_BYTES = 1 << 20
AT_THE_END = -1


def read_head(path: Path, expected: str) -> bytes:
    """Return the first bytes of a file, in which its header ends.

    Raises:
        InputError: It cannot be read; ``expected`` says what it should have been.
    """
    try:
        with path.open("rb") as file:
            return file.read(HEADER_BYTES)
    except OSError as error:
        raise InputError(f"{path}: expected {expected}: {error}") from error


@dataclass(frozen=True)
class StoredMovie:
    """What a header says, checked against nothing yet.

    Attributes:
        path: The file with the header.
        data: The file with the pixels, often the same.
        offset: Where the pixels begin in ``data``, in bytes; AT_THE_END for the last bytes of the file.
        compressed: Whether the pixels are a zlib or gzip stream.
        dtype: Type of a pixel, with its byte order.
        sizes: Length of every axis, the fastest first.
        spacings: Distance between neighbours along every axis in mm; None when not stated. Time is not read.
        time: Index of the time axis in ``sizes``.
        frame_s: Time between frames in seconds; None when unknown.
    """

    path: Path
    data: Path
    offset: int
    compressed: bool
    dtype: np.dtype
    sizes: tuple[int, ...]
    spacings: tuple[float | None, ...]
    time: int
    frame_s: float | None


def movie_header_of(movie: StoredMovie) -> ImageHeader:
    """Return shape (T, Z, Y, X) or (T, Y, X) and spacing, after a check that the data file can hold the pixels.

    Raises:
        InputError: There are not 3 or 4 axes, one is empty, or the data file is missing or too small.
    """
    if len(movie.sizes) not in (3, 4):
        raise InputError(
            f"{movie.path}: found {len(movie.sizes)} axes {movie.sizes}, expected 4 (x, y, z, t) or 3 (x, y, t)"
        )
    if min(movie.sizes) < 1:
        raise InputError(f"{movie.path}: found an empty image, sizes {movie.sizes}")
    _check_data(movie)
    space = [axis for axis in range(len(movie.sizes)) if axis != movie.time]
    shape = (movie.sizes[movie.time], *(movie.sizes[axis] for axis in reversed(space)))
    lengths = [positive_length(movie.spacings[axis]) for axis in space]
    x_mm, y_mm = lengths[:2]
    slice_mm = lengths[2] if len(lengths) == 3 else None
    # No unit is stated, and spacings of 1 are what a writer leaves that knew none.
    if x_mm is None or y_mm is None or x_mm == y_mm == 1.0:
        return ImageHeader(movie.path, shape, Spacing(pixel_known=False, slice_mm=slice_mm, frame_s=movie.frame_s))
    return ImageHeader(movie.path, shape, Spacing((y_mm, x_mm), slice_mm=slice_mm, frame_s=movie.frame_s))


def read_stored_pixels(movie: StoredMovie) -> np.ndarray:
    """Read the pixels as (T, Z, Y, X) or (T, Y, X), in the type they are stored in.

    Raises:
        InputError: As :func:`movie_header_of`, or the data are cut off or damaged.
    """
    shape = movie_header_of(movie).shape
    n_bytes = _n_bytes(movie)
    try:
        with movie.data.open("rb") as file:
            file.seek(movie.data.stat().st_size - n_bytes if movie.offset == AT_THE_END else movie.offset)
            stored = file.read() if movie.compressed else file.read(n_bytes)
        content = _inflated(stored, n_bytes) if movie.compressed else stored
    except (OSError, zlib.error) as error:
        raise InputError(f"{movie.data}: the pixels cannot be read, the file may be damaged: {error}") from error
    if len(content) != n_bytes:
        raise InputError(f"{movie.data}: found {len(content)} bytes of pixels, expected {n_bytes}; the file is cut off")
    pixels = np.frombuffer(content, movie.dtype).reshape(tuple(reversed(movie.sizes)))
    return np.ascontiguousarray(np.moveaxis(pixels, len(movie.sizes) - 1 - movie.time, 0)).reshape(shape)


class HeaderFields:
    """The fields of a text header, by key in lower case; what is missing or of another kind is an InputError."""

    def __init__(self, path: Path, fields: Mapping[str, str]) -> None:
        self.path = path
        self.fields = fields

    def text(self, key: str, default: str | None = None) -> str:
        """Return a field as it is."""
        value = self.fields.get(key, default)
        if value is None:
            raise InputError(f"{self.path}: found no field {key!r} in the header; the file may be damaged")
        return value

    def whole(self, key: str, default: str | None = None) -> int:
        """Return a field that is one whole number."""
        (number,) = self.numbers(key, 1, int, default)
        return number

    def numbers(self, key: str, n: int, kind: Callable[[str], float], default: str | None = None) -> list:
        """Return a field that is ``n`` numbers with blanks between."""
        text = self.text(key, default)
        try:
            values = [kind(word) for word in text.split()]
        except ValueError:
            values = []
        if len(values) != n:
            raise InputError(f"{self.path}: found {key} {text[:80]!r}, expected {n} number(s)")
        return values

    def one_of(self, key: str, values: Mapping, default: str | None = None) -> object:
        """Return what ``values`` gives for a field, which is compared in lower case."""
        text = self.text(key, default)
        if text.lower() not in values:
            raise InputError(f"{self.path}: found {key} {text[:80]!r}, expected one of {', '.join(values)}")
        return values[text.lower()]


def _inflated(stored: bytes, n_bytes: int) -> bytes:
    # 32 lets zlib tell gzip from its own format; room for one byte more keeps it from stopping before the check sum.
    stream = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    content = stream.decompress(stored, n_bytes + 1)
    if not stream.eof:
        raise zlib.error("the compressed stream does not end where the pixels do")
    return content


def _n_bytes(movie: StoredMovie) -> int:
    # Python's numbers have no largest one; numpy's product of damaged sizes would wrap around.
    return math.prod(movie.sizes) * movie.dtype.itemsize


def _check_data(movie: StoredMovie) -> None:
    try:
        available = movie.data.stat().st_size - max(movie.offset, 0)
    except (OSError, ValueError) as error:
        raise InputError(f"{movie.path}: its file of pixels {movie.data} cannot be read: {error}") from error
    if not movie.data.is_file():
        raise InputError(f"{movie.path}: found {movie.data} as its file of pixels, expected a file")
    if _n_bytes(movie) > available * (DEFLATE_AT_MOST if movie.compressed else 1):
        raise InputError(
            f"{movie.path}: found sizes {movie.sizes}, that is {_n_bytes(movie)} bytes of pixels, but {movie.data} "
            f"has only {max(available, 0)}; the file is cut off or its header damaged"
        )
