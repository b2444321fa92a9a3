"""What DICOM movies have in common: reading headers and grey values, and which source frame each frame came from.

Tags and their meaning: DICOM PS3.3, 2024. Needs the extra ``dicom``: pydicom, and python-gdcm for compressed pixels.
"""

import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from nnunet_temporal.datasets.image_io import DEFLATE_AT_MOST, Spacing
from nnunet_temporal.errors import InputError

DicomDataset: TypeAlias = Any
"""A ``pydicom.Dataset``, of a file, an item or to be written; pydicom need not be installed."""

# ITU-R BT.601, the weights of the Y that JPEG stores.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_INSTALL = "pip install 'nnunet_temporal[dicom]'"
_GREY = "MONOCHROME2"
_PALETTE = "PALETTE COLOR"
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_IDENTITY_TAGS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"]
_ORDER_TAGS = ["PatientID", "StudyDate", "StudyTime", "SeriesNumber", "InstanceNumber", "AcquisitionTime", "ImageType"]
_PIXEL_TAGS = ["Rows", "Columns", "NumberOfFrames", "BitsAllocated", "UltrasoundColorDataPresent"]
_VALUE_TAGS = ["RescaleSlope", "RescaleIntercept"]
_PLACE_TAGS = ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SequenceOfUltrasoundRegions"]
_BEAT_TAGS = ["TriggerTime", "NominalInterval", "CardiacNumberOfImages"]
_CLIP_TAGS = ["FrameIncrementPointer", "FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate"]
_GROUP_TAGS = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
# Headers of a whole folder are held at once, and private tags may be large.
_IMAGE_TAGS = [*_PIXEL_TAGS, *_VALUE_TAGS, *_PLACE_TAGS]
_TAGS = [*_IDENTITY_TAGS, *_ORDER_TAGS, *_IMAGE_TAGS, *_BEAT_TAGS, *_CLIP_TAGS, *_GROUP_TAGS]
# What the decoders behind pydicom raise for cut-off pixels, unknown encodings and missing plugins.
_WRONG_VALUES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error)
_DECODE_ERRORS = (*_WRONG_VALUES, EOFError, MemoryError, OSError, RuntimeError, zlib.error)
# Transfer syntaxes whose pixels lie in the file as they are, in a file that is deflated as a whole or not.
_DEFLATED = "1.2.840.10008.1.2.1.99"
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", _DEFLATED)
# Each compressed frame is an item of its own, of which tag and length take so many bytes.
_ITEM_BYTES = 8


@dataclass(frozen=True)
class FrameSource:
    """The frame of a DICOM instance that one 2D frame came from.

    Attributes:
        path: The file.
        series_uid: Its SeriesInstanceUID.
        sop_class_uid: Its SOPClassUID.
        sop_instance_uid: Its SOPInstanceUID.
        number: Index of the frame in the instance; DICOM's ReferencedFrameNumber is one more.
        is_multi_frame: Whether the instance is of a kind that holds many frames, and not one file per frame.
        slope: Grey value = stored value * ``slope`` + ``intercept``.
        intercept: See ``slope``.
        position_mm: Centre of the first pixel in DICOM's patient axes, None for ultrasound.
    """

    path: Path
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    number: int = 0
    is_multi_frame: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    position_mm: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Window:
    """The part of the stored pixels that a movie shows: rows ``top`` to ``bottom`` - 1, columns likewise."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def cut(self) -> tuple[Any, ...]:
        """Index that cuts the last two axes, (Y, X)."""
        return (..., slice(self.top, self.bottom), slice(self.left, self.right))


@dataclass(frozen=True)
class DicomMovie:
    """A movie whose headers have been read; pixels are read by :meth:`load_image`.

    Attributes:
        patient_id: PatientID, may be empty.
        study_uid: StudyInstanceUID.
        study_time: StudyDate and StudyTime as one text that sorts by time, may be empty.
        view: Short name of the movie within its study, made of series and instance number.
        frames: Where each frame came from, ``frames[t][z]``; one z for ultrasound.
        stored_shape: Rows and columns of the stored frames.
        window: What of them is shown.
        is_stack: True for (T, Z, Y, X), False for (T, Y, X).
        spacing: Distances between pixels, slices and frames.
        affine: (4, 4); takes (x, y, z, 1), pixel indices in the window, to mm: for MRI in the patient's axes of NIfTI
            (to the right, front, head of the patient), for ultrasound in those of the probe, from the reference pixel
            (sideways, depth, 0). None when the pixel spacing is not known.
        cyclic: Whether the frames cover exactly one heart beat.
        colour_flow: Whether the header says that colour stands for flow (colour Doppler).
    """

    patient_id: str
    study_uid: str
    study_time: str
    view: str
    frames: tuple[tuple[FrameSource, ...], ...] = field(repr=False)
    stored_shape: tuple[int, int]
    window: Window
    is_stack: bool
    spacing: Spacing = field(default_factory=Spacing)
    affine: np.ndarray | None = None
    cyclic: bool = False
    colour_flow: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, Z, Y, X), or (T, Y, X) for ultrasound."""
        in_plane = (self.window.bottom - self.window.top, self.window.right - self.window.left)
        return (len(self.frames), *([len(self.frames[0])] if self.is_stack else []), *in_plane)

    def load_image(self) -> np.ndarray:
        """Read the grey values, with rescale slope and intercept applied.

        Returns:
            (T, Z, Y, X) or (T, Y, X), float32.

        Raises:
            InputError: A file cannot be decoded, has no grey values, or frames of another size than its header says.
        """
        in_plane = self.shape[-2:]
        try:
            image = np.empty((len(self.frames), len(self.frames[0]), *in_plane), np.float32)
        except MemoryError as error:
            raise InputError(f"{self.frames[0][0].path}: no memory for {self.shape}, (T, Z, Y, X): {error}") from error
        places: dict[Path, list[tuple[int, int]]] = {}
        for t, slices in enumerate(self.frames):
            for z, source in enumerate(slices):
                places.setdefault(source.path, []).append((t, z))
        for path, of_file in places.items():
            numbers = [self.frames[t][z].number for t, z in of_file]
            for (t, z), pixels in zip(of_file, read_grey_frames(path, numbers), strict=True):
                if pixels.shape != self.stored_shape:
                    raise InputError(f"{path}: found a frame of {pixels.shape}, expected {self.stored_shape} pixels")
                source = self.frames[t][z]
                image[t, z] = pixels[self.window.cut] * source.slope + source.intercept
        return image.reshape(self.shape)


def import_pydicom() -> ModuleType:
    """Return the package pydicom.

    Raises:
        InputError: It is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise InputError(f"DICOM needs pydicom, which is not installed; {_INSTALL}") from error
    return pydicom


def read_header(path: Path) -> DicomDataset | None:
    """Read what the converter needs of a header, or return None for a file that is no DICOM.

    Raises:
        InputError: pydicom is missing, or the file is called ``.dcm`` or starts like DICOM but cannot be read.
    """
    pydicom = import_pydicom()
    try:
        with warnings.catch_warnings():
            # Files of anonymisers often hold UIDs that break the rules; they are identifiers all the same.
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            # pydicom parses a value, and complains about it, only when it is asked for.
            for part in (header.file_meta, header):
                for _ in part.iterall():
                    pass
            return header
    except pydicom.errors.InvalidDicomError as error:
        if path.suffix.lower() == ".dcm":
            raise InputError(f"{path}: expected a DICOM file: {error}; restore or remove it") from error
        return None
    except (*_DECODE_ERRORS, pydicom.errors.BytesLengthException) as error:
        raise InputError(f"{path}: the DICOM header cannot be read: {error}; restore or remove the file") from error


def required(header: DicomDataset, path: Path, name: str) -> Any:  # noqa: ANN401 - values of any type
    """Return a value of the header by its keyword.

    Raises:
        InputError: It is missing or empty.
    """
    value = header.get(name)
    if value is None or value == "":
        raise InputError(f"{path}: {name} is missing, which the conversion needs; export the file with it")
    return value


def numbers_in(facts: DicomDataset, path: Path, name: str, n: int | None = 1) -> list[float] | None:
    """Return the numbers of a tag, None where it is missing or empty.

    Args:
        facts: A header, an item of a sequence, or a dictionary of values by keyword.
        path: The file, for messages.
        name: The keyword.
        n: How many numbers there must be, None for any number of them.

    Raises:
        InputError: There are more or fewer, or one is no finite number.
    """
    value = facts.get(name)
    try:
        found = [] if value is None or value == "" else [float(number) for number in np.atleast_1d(value)]
    except (TypeError, ValueError):
        found = [np.nan]
    if not np.isfinite(found).all() or (found and n not in (None, len(found))):
        raise InputError(f"{path}: found {name} {value!r}, expected {n or 'only'} finite number(s); correct the header")
    return found or None


def number_in(facts: DicomDataset, path: Path, name: str) -> float:
    """Return the one number of a tag, 0 where it is missing or empty; see :func:`numbers_in`."""
    return (numbers_in(facts, path, name) or [0.0])[0]


def required_numbers(facts: DicomDataset, path: Path, name: str, n: int = 1) -> list[float]:
    """Return the numbers of a tag that must be there; see :func:`required` and :func:`numbers_in`."""
    required(facts, path, name)
    return numbers_in(facts, path, name, n) or []


def frame_size(header: DicomDataset, path: Path, n_frames: int = 1) -> tuple[int, int]:
    """Return rows and columns, after a check that the file can hold ``n_frames`` of them.

    Raises:
        InputError: One is missing or no number, or the file is too small for them, so that the header must be damaged.
    """
    rows, columns = (int(required_numbers(header, path, name)[0]) for name in ("Rows", "Columns"))
    syntax = header.file_meta.get("TransferSyntaxUID", _NATIVE[0])
    pixel_bytes = rows * columns * (number_in(header, path, "BitsAllocated") or 8) / 8
    available = path.stat().st_size * (DEFLATE_AT_MOST if syntax == _DEFLATED else 1)
    if n_frames * max(_ITEM_BYTES, pixel_bytes if syntax in _NATIVE else 0) > available:
        raise InputError(
            f"{path}: found {n_frames} frames of {rows} x {columns} pixels in the header, for which a file of "
            f"{path.stat().st_size} bytes is too small; it is cut off or damaged, restore or remove it"
        )
    return rows, columns


def read_grey_frames(path: Path, numbers: list[int]) -> Iterator[np.ndarray]:
    """Decode frames one at a time, colour as luma (ITU-R BT.601).

    Args:
        path: A DICOM file with pixels.
        numbers: Indices of the frames wanted, from 0, in any order.

    Yields:
        (Y, X), float32, stored values.

    Raises:
        InputError: The frames cannot be decoded or are neither grey nor colour images.
    """
    pydicom = import_pydicom()
    try:
        header = pydicom.dcmread(path)
        # pydicom turns every YBR into RGB itself; a second conversion gives green images.
        for pixels in pydicom.pixels.iter_pixels(header, indices=numbers):
            yield _grey(pixels, header, path)
    except InputError:
        raise
    except _DECODE_ERRORS as error:
        raise InputError(
            f"{path}: the pixels cannot be decoded, the file may be cut off or its compression need a decoder "
            f"({_INSTALL}): {error}"
        ) from error


def _grey(pixels: np.ndarray, header: DicomDataset, path: Path) -> np.ndarray:
    kind = header.PhotometricInterpretation
    if kind == _GREY and pixels.ndim == 2:
        return pixels.astype(np.float32)
    if kind == _PALETTE:
        lut = import_pydicom().pixels.apply_color_lut(pixels, header)[..., :3]
        # The table's entries have 8 or 16 bits; grey values shall not depend on that.
        return (lut / np.float32(257) if lut.dtype == np.uint16 else lut).astype(np.float32) @ _LUMA
    if kind in _COLOURS and pixels.ndim == 3:
        return pixels.astype(np.float32) @ _LUMA
    raise InputError(f"{path}: found {kind} pixels of shape {pixels.shape}, expected grey values or colours")
