"""Masks of movies that came in other formats than NIfTI: as NIfTI, as lossless video, and under the movie's own header.

Masks are whole numbers (T, Z, Y, X) or (T, Y, X), uint8 or uint16. Files appear whole or not at all.
"""

import gzip
import zlib
from fractions import Fraction
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.datasets.image_io import T_SPACING, Spacing, open_nifti
from nnunet_temporal.datasets.movie_file import read_head
from nnunet_temporal.datasets.movie_nrrd import read_nrrd
from nnunet_temporal.datasets.video_io import import_av
from nnunet_temporal.errors import InputError

# What is said of the grey values, or of how they are stored, is not so of the masks.
_NRRD_DROPPED = (
    "type", "encoding", "endian", "block size", "blocksize", "data file", "datafile", "line skip", "lineskip",
    "byte skip", "byteskip", "min", "max", "old min", "oldmin", "old max", "oldmax", "sample units", "sampleunits",
)  # fmt: skip
_META_DROPPED = (
    "elementtype", "elementbyteordermsb", "binarydata", "binarydatabyteordermsb", "compresseddata",
    "compresseddatasize", "headersize", "elementmin", "elementmax", "elementdatafile",
)  # fmt: skip
_META_TYPES = {"uint8": "MET_UCHAR", "uint16": "MET_USHORT"}
_UNKNOWN_RATE = 25


def write_nifti_masks(masks: np.ndarray, spacing: Spacing, path: Path, affine: np.ndarray | None = None) -> None:
    """Write masks as NIfTI, (x, y, z, t) or (x, y, t).

    Args:
        masks: (T, Z, Y, X) or (T, Y, X).
        spacing: Of the movie; lengths that are not known get no unit.
        path: File to write, ending in ``.nii.gz``; its folder must exist.
        affine: (4, 4), to mm; None knows no place, only the spacing.
    """
    is_stack = masks.ndim == 4
    if affine is None:
        y_mm, x_mm = spacing.pixel_mm
        affine = np.diag([x_mm, y_mm, spacing.slice_mm or 1.0 if is_stack else T_SPACING, 1.0])
    image = nibabel.Nifti1Image(masks.T, affine)
    states_time = is_stack and spacing.frame_s is not None
    if states_time:
        image.header.set_zooms((*image.header.get_zooms()[:3], spacing.frame_s))
    image.header.set_xyzt_units("mm" if spacing.pixel_known else "unknown", "sec" if states_time else "unknown")
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)


def write_like_nifti(masks: np.ndarray, original: Path, path: Path) -> None:
    """Write masks as NIfTI on the grid and with the header of another file: affine, codes, zooms and units are its own.

    Args:
        masks: Label values in as many pixels as the original has, its axes reversed.
        original: The NIfTI file that was segmented.
        path: File to write, ending in ``.nii.gz``; its folder must exist.

    Raises:
        InputError: The original cannot be read.
    """
    image = open_nifti(original)
    header = image.header.copy()
    header.set_data_dtype(masks.dtype)
    # Window and scaling describe the grey values of the original; a viewer would show the labels wrongly with them.
    header.set_slope_inter(1.0, 0.0)
    header["cal_min"], header["cal_max"] = 0.0, 0.0
    with atomic_path(path) as temporary:
        nibabel.save(type(image)(masks.T.reshape(image.shape), image.affine, header), temporary)


def write_like_nrrd(masks: np.ndarray, movie: Path, path: Path) -> None:
    """Write masks as NRRD, compressed, on the axes of a movie and with all that its header says of them.

    Args:
        masks: (T, Z, Y, X) or (T, Y, X), of the shape of the movie.
        movie: The NRRD file that was segmented.
        path: File to write, ending in ``.nrrd``; its folder must exist.

    Raises:
        InputError: The header of the movie cannot be read.
    """
    time = read_nrrd(movie).time
    lines = (
        read_head(movie, "the movie again, whose header its masks need")
        .replace(b"\r\n", b"\n")
        .partition(b"\n\n")[0]
        .split(b"\n")
    )
    # A line "key:=value" is a note of whoever wrote the file, whatever its key is.
    kept = [line for line in lines if b":=" in line or _key(line, b":") not in _NRRD_DROPPED]
    stored = np.ascontiguousarray(np.moveaxis(masks, 0, masks.ndim - 1 - time))
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        facts = f"type: {stored.dtype.name}\nendian: little\nencoding: gzip\n\n".encode()
        file.write(b"\n".join(kept) + b"\n" + facts)
        file.write(gzip.compress(_little_endian(stored), mtime=0))


def write_like_meta_image(masks: np.ndarray, movie: Path, path: Path) -> None:
    """Write masks as MetaImage, compressed and in one file, with all that a movie's header says of its axes.

    Args:
        masks: (T, Z, Y, X) or (T, Y, X), of the shape of the movie.
        movie: The MetaImage file that was segmented.
        path: File to write, ending in ``.mha``; its folder must exist.

    Raises:
        InputError: The header of the movie cannot be read.
    """
    kept = []
    for line in read_head(movie, "the movie again, whose header its masks need").split(b"\n"):
        if _key(line, b"=") not in _META_DROPPED:
            kept.append(line.rstrip(b"\r"))
        if _key(line, b"=") == "elementdatafile":  # the last one; pixels may follow
            break
    content = zlib.compress(_little_endian(masks))
    facts = {
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": True,
        "CompressedDataSize": len(content),
        "ElementType": _META_TYPES[masks.dtype.name],
        "ElementDataFile": "LOCAL",
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(b"\n".join([*kept, *(f"{key} = {value}".encode() for key, value in facts.items())]) + b"\n")
        file.write(content)


def write_like_mhd(masks: np.ndarray, original: Path, path: Path) -> None:
    """Write masks as MetaImage in two files, a header and pixels that are not compressed, on the grid of an image.

    Args:
        masks: (1, Y, X), uint8.
        original: The image that was segmented, MetaImage or NIfTI, (x, y) or (x, y, 1).
        path: File to write, ending in ``.mhd``; ``.raw`` appears beside it. Two files never appear at once: its folder
            must be one that nobody reads yet.

    Raises:
        InputError: The original cannot be read.
    """
    try:
        grid = SimpleITK.ReadImage(str(original))
    except RuntimeError as error:
        raise InputError(f"{original}: expected a readable image, whose grid its masks need: {error}") from error
    image = SimpleITK.GetImageFromArray(masks)
    image.CopyInformation(SimpleITK.JoinSeries(grid) if grid.GetDimension() == 2 else grid)
    SimpleITK.WriteImage(image, str(path))


def write_mask_video(masks: np.ndarray, frame_s: float | None, path: Path) -> None:
    """Write masks as a grey video without loss (FFV1), whose pixels are the label values: nearly black to the eye.

    Args:
        masks: (T, Y, X).
        frame_s: Time between frames in seconds; None writes 25 frames per second.
        path: File to write, ending in ``.avi``; its folder must exist.

    Raises:
        InputError: PyAV is missing.
    """
    av = import_av()
    rate = Fraction(_UNKNOWN_RATE if frame_s is None else 1 / frame_s).limit_denominator(1000)
    layout = "gray" if masks.dtype == np.uint8 else "gray16le"
    with atomic_path(path) as temporary, av.open(str(temporary), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *masks.shape[1:], layout
        for mask in masks:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(mask), layout)))
        container.mux(stream.encode(None))


def _key(line: bytes, separator: bytes) -> str:
    return line.partition(separator)[0].strip().lower().decode("latin-1")


def _little_endian(masks: np.ndarray) -> bytes:
    return masks.astype(masks.dtype.newbyteorder("<")).tobytes()
