"""NIfTI in and out: 4D studies and 3D sequences as arrays with time first, and sequences as nnU-Net stores them.

On disk axes are (x, y, z, t) or (x, y, t); in memory they are (T, Z, Y, X) or (T, Y, X).
"""

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.errors import InputError

NIFTI_ENDINGS = (".nii.gz", ".nii")
SEQUENCE_ENDING = ".nii.gz"
# nnU-Net takes the axis with the largest spacing for the slow one; 10 keeps that axis time for any heart's pixels.
T_SPACING = 10.0
# What a byte of a zlib or gzip stream can become at most (https://zlib.net/zlib_tech.html): a bound on what fits.
DEFLATE_AT_MOST = 1032

_MM_PER_UNIT = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}
_SECONDS_PER_UNIT = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_PLAUSIBLE_FRAME_INTERVAL_S = (0.001, 1.0)
_READ_ERRORS = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, OverflowError, zlib.error)


@dataclass(frozen=True)
class Spacing:
    """Distances in space and time.

    Attributes:
        pixel_mm: In-plane spacing (y, x) in mm.
        pixel_known: False when ``pixel_mm`` is a placeholder.
        slice_mm: Distance between the centres of neighbouring slices in mm; None outside a stack or when unknown.
        frame_s: Time between frames in seconds; None when unknown.
    """

    pixel_mm: tuple[float, float] = (1.0, 1.0)
    pixel_known: bool = True
    slice_mm: float | None = None
    frame_s: float | None = None


@dataclass(frozen=True)
class ImageHeader:
    """What a NIfTI file says about its pixels: the file, its shape (T, Z, Y, X) or (T, Y, X), and their spacing."""

    path: Path
    shape: tuple[int, ...]
    spacing: Spacing


def nifti_name(path: Path) -> str:
    """Return the file name without its NIfTI ending; the whole name when it has none."""
    for ending in NIFTI_ENDINGS:
        if path.name.endswith(ending):
            return path.name[: -len(ending)]
    return path.name


def find_niftis(folder: Path) -> list[Path]:
    """Return the NIfTI files directly in ``folder``, sorted by name; hidden files are left out."""
    files = (path for path in folder.iterdir() if path.name.endswith(NIFTI_ENDINGS) and path.is_file())
    return sorted(path for path in files if not path.name.startswith("."))


def open_nifti(path: Path) -> nibabel.Nifti1Image:
    """Open a NIfTI file without reading its pixels.

    Raises:
        InputError: The file is missing, unreadable or no NIfTI.
    """
    try:
        image = nibabel.load(path)
    except (*_READ_ERRORS, MemoryError) as error:  # a damaged length of the header's extensions is asked for at once
        raise InputError(f"{path}: expected a readable NIfTI file (.nii, .nii.gz): {error}") from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise InputError(f"{path}: found {type(image).__name__}, expected a NIfTI file (.nii, .nii.gz)")
    return image


def read_header(path: Path, still: bool = False) -> ImageHeader:
    """Read shape and spacing of a study (x, y, z, t) or a sequence (x, y, t).

    Spacing comes from the header's zooms, never from the affine: ACDC and its descendants carry a unit sform. The frame
    interval is None unless the file states a time unit and a plausible value.

    Args:
        path: The file.
        still: Whether two axes (x, y) are taken for a sequence of one frame.

    Raises:
        InputError: The file is unreadable, has not 3 or 4 axes, an axis is empty, or the file is too small for them.
    """
    header = open_nifti(path).header
    shape = _squeezed_shape(header.get_data_shape())
    shape = (*shape, 1) if still and len(shape) == 2 else shape
    if len(shape) not in (3, 4):
        raise InputError(f"{path}: found {len(shape)} axes {shape}, expected 4 (x, y, z, t) or 3 (x, y, t)")
    if shape[-1] == 0:
        raise InputError(f"{path}: found zero frames, shape {shape}; expected at least one frame along the last axis")
    if min(shape) < 1:
        raise InputError(f"{path}: found an empty image, shape {shape}")
    _check_size(path, math.prod(shape) * header.get_data_dtype().itemsize)
    return ImageHeader(path, tuple(reversed(shape)), _spacing_of(header, len(shape)))


def read_image(path: Path, still: bool = False) -> np.ndarray:
    """Read grey values as (T, Z, Y, X) or (T, Y, X), float32; for ``still`` see :func:`read_header`.

    Raises:
        InputError: As :func:`read_header`, or pixels are not grey values, or some are NaN or infinite.
    """
    return as_grey_values(_read_pixels(path, still), path)


def read_labels(path: Path, still: bool = False) -> np.ndarray:
    """Read label values as (T, Z, Y, X) or (T, Y, X); labels stored as floats must hold whole numbers.

    For ``still`` see :func:`read_header`.

    Returns:
        The labels in the smallest unsigned integer type that holds them.

    Raises:
        InputError: As :func:`read_header`, or a value is not a whole number in 0..65535.
    """
    return as_labels(_read_pixels(path, still), path)


def as_grey_values(pixels: np.ndarray, path: Path) -> np.ndarray:
    """Return pixels of any shape and numeric type as float32.

    Raises:
        InputError: Some are NaN or infinite; the message names ``path``.
    """
    image = pixels.astype(np.float32)
    if not np.isfinite(image).all():
        n_bad = int(np.count_nonzero(~np.isfinite(image)))
        raise InputError(f"{path}: found {n_bad} NaN or infinite pixels, expected finite ones; replace or drop them")
    return image


def as_labels(values: np.ndarray, path: Path) -> np.ndarray:
    """Return label values of any shape in the smallest unsigned integer type that holds them.

    Raises:
        InputError: A value is not a whole number in 0..65535; the message names ``path``.
    """
    # Most masks hold whole numbers already; then the largest one says all.
    if values.dtype.kind in "bu" and values.max() <= np.iinfo(np.uint16).max:
        return values.astype(np.min_scalar_type(int(values.max())))
    wrong = values[~((values >= 0) & (values <= np.iinfo(np.uint16).max) & (values == np.rint(values)))]
    if wrong.size:
        found = np.unique(wrong)[:5].tolist()
        raise InputError(f"{path}: found label values {found}, expected whole numbers in 0..65535")
    return values.astype(np.min_scalar_type(int(values.max())))


def check_same_grid(labels: ImageHeader, image: ImageHeader) -> None:
    """Check that a label file covers exactly the frames, slices and pixels of its image.

    Raises:
        InputError: The shapes differ.
    """
    if labels.shape == image.shape:
        return
    found, expected = (tuple(reversed(header.shape)) for header in (labels, image))
    hint = ""
    if len(found) != len(expected):
        hint = f"; a {len(expected)}D image needs a {len(expected)}D label file with one mask per frame"
    raise InputError(f"{labels.path}: found label shape {found}, expected {expected}, the shape of {image.path}{hint}")


def positive_length(length: float | None) -> float | None:
    """Return a length that can be one, finite and above 0, else None."""
    return length if length is not None and np.isfinite(length) and length > 0 else None


def plausible_interval(interval_s: float) -> float | None:
    """Return a time between frames that a movie of a heart can have, in seconds, else None."""
    shortest, longest = _PLAUSIBLE_FRAME_INTERVAL_S
    return interval_s if shortest <= interval_s <= longest else None


def write_sequence(pixels: np.ndarray, pixel_spacing_mm: tuple[float, float], path: Path) -> None:
    """Write a sequence as nnU-Net stores it: (x, y, t) with a diagonal affine and a constant t spacing.

    Args:
        pixels: (T, Y, X); a floating-point image is written as float32, an integer mask as uint8 (uint16 above 255).
        pixel_spacing_mm: In-plane spacing (y, x) in mm.
        path: File to write, ending in ``.nii.gz``; its folder must exist.
    """
    is_mask = np.issubdtype(pixels.dtype, np.integer)
    dtype = np.min_scalar_type(int(pixels.max())) if is_mask else np.float32
    y_mm, x_mm = pixel_spacing_mm
    image = nibabel.Nifti1Image(pixels.T.astype(dtype), np.diag([x_mm, y_mm, T_SPACING, 1.0]))
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)


def _squeezed_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    # Some writers pad to five or more axes; NIfTI's fifth axis holds vectors, of which a grey movie has one.
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    return tuple(int(length) for length in shape)


def _check_size(path: Path, n_bytes: int) -> None:
    # nibabel would ask for the memory first, and a damaged header can ask for all there is.
    stored = path.stat().st_size
    if n_bytes > stored * (DEFLATE_AT_MOST if path.name.endswith(".gz") else 1):
        raise InputError(
            f"{path}: found a header for {n_bytes} bytes of pixels in a file of {stored}, so the pixels cannot be "
            "read, the file may be cut off"
        )


def _units(header: nibabel.Nifti1Header) -> tuple[str, str]:
    try:
        return header.get_xyzt_units()
    except KeyError:  # a code that NIfTI does not define
        return "unknown", "unknown"


def _spacing_of(header: nibabel.Nifti1Header, n_axes: int) -> Spacing:
    zooms = [*(float(zoom) for zoom in header.get_zooms()), 0.0]  # a still has none for time
    space_unit, time_unit = _units(header)
    lengths = [positive_length(zoom * _MM_PER_UNIT[space_unit]) for zoom in zooms[: n_axes - 1]]
    slice_mm = lengths[2] if n_axes == 4 else None
    interval_s = zooms[n_axes - 1] * _SECONDS_PER_UNIT.get(time_unit, 0.0)
    frame_s = plausible_interval(interval_s)
    x_mm, y_mm = lengths[:2]
    # Zooms of 1 without a unit are what a writer leaves that knew no spacing; nibabel also turns zooms of 0 into 1.
    never_set = space_unit == "unknown" and x_mm == y_mm == 1.0
    if x_mm is None or y_mm is None or never_set:
        return Spacing(pixel_known=False, slice_mm=slice_mm, frame_s=frame_s)
    return Spacing((y_mm, x_mm), slice_mm=slice_mm, frame_s=frame_s)


def _compressed_pixels(path: Path) -> np.ndarray:
    image_type = type(open_nifti(path))
    with gzip.open(path) as file:
        pixels = np.asanyarray(image_type.from_stream(file).dataobj)
        # The check sum follows the last byte; nibabel stops before it and takes damaged pixels for good ones.
        while file.read(1 << 20):
            pass
    return pixels


def _read_pixels(path: Path, still: bool) -> np.ndarray:
    shape = read_header(path, still).shape
    try:
        pixels = _compressed_pixels(path) if path.name.endswith(".gz") else np.asanyarray(open_nifti(path).dataobj)
    except _READ_ERRORS as error:
        raise InputError(f"{path}: the pixels cannot be read, the file may be cut off: {error}") from error
    if pixels.dtype.kind not in "biuf":
        raise InputError(f"{path}: found pixels of type {pixels.dtype}, expected one number per pixel (grey values)")
    return np.ascontiguousarray(pixels.T).reshape(shape)
