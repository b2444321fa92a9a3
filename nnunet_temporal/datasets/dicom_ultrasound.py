"""Multi-frame ultrasound: spacing and the 2D image's place from its regions, time from whatever tag states it.

Regions: DICOM PS3.3 C.8.5.5, US Region Calibration. Frame times: C.7.6.5 (Cine) and C.7.6.6 (Multi-frame).
"""

from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.dicom_files import (
    DicomDataset,
    DicomMovie,
    FrameSource,
    Window,
    frame_size,
    number_in,
    numbers_in,
    required,
    required_numbers,
)
from nnunet_temporal.datasets.image_io import Spacing
from nnunet_temporal.errors import InputError

# Ultrasound Multi-frame Image Storage, and its retired predecessor.
SOP_CLASSES = ("1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.5.1.4.1.1.3")

_FORMAT_2D, _TISSUE, _COLOUR_FLOW, _CENTIMETRES = 1, 1, 2, 3
_MM_PER_CM = 10.0
_FRAME_TIME_VECTOR_TAG = 0x00181065
# The fourth value of ImageType is a sum of kinds, in hexadecimal (PS3.3 C.8.5.6.1.1).
_COLOUR_DOPPLER_BIT = 0x10


def read_ultrasound(path: Path, header: DicomDataset) -> DicomMovie:
    """Describe a multi-frame ultrasound file.

    The movie is cut to the region of the 2D image, where the header states one that lies within the pixels. A region
    that does not was written for pixels of another size, as left by export at reduced size: then neither its place nor
    its spacing is believed, and nothing is cut.

    Args:
        path: The file.
        header: Its header.

    Returns:
        A movie (T, Y, X).

    Raises:
        InputError: A tag is missing or damaged, or two 2D images are side by side.
    """
    n_frames = int(required_numbers(header, path, "NumberOfFrames")[0])
    stored_shape = frame_size(header, path, n_frames)
    series_uid = str(required(header, path, "SeriesInstanceUID"))
    uids = (str(required(header, path, "SOPClassUID")), str(required(header, path, "SOPInstanceUID")))
    whole = Window(0, stored_shape[0], 0, stored_shape[1])
    region, window = _image_region(path, header, stored_shape) or (None, whole)
    steps_mm = _steps_mm(path, header, region)
    return DicomMovie(
        patient_id=str(header.get("PatientID") or ""),
        study_uid=str(required(header, path, "StudyInstanceUID")),
        study_time=f"{header.get('StudyDate') or ''}{header.get('StudyTime') or ''}",
        view=f"s{number_in(header, path, 'SeriesNumber'):.0f}i{number_in(header, path, 'InstanceNumber'):.0f}",
        frames=tuple((FrameSource(path, series_uid, *uids, t, is_multi_frame=True),) for t in range(n_frames)),
        stored_shape=stored_shape,
        window=window,
        is_stack=False,
        spacing=_spacing(steps_mm, _frame_s(path, header)),
        affine=None if steps_mm is None else _probe_affine(path, steps_mm, region),
        colour_flow=_shows_flow(header),
    )


def _regions(header: DicomDataset) -> list[DicomDataset]:
    return list(header.get("SequenceOfUltrasoundRegions") or [])


def _window(path: Path, region: DicomDataset, stored_shape: tuple[int, int]) -> Window:
    left, top, right, bottom = (
        int(required_numbers(region, path, f"RegionLocation{corner}")[0])
        for corner in ("MinX0", "MinY0", "MaxX1", "MaxY1")
    )
    # Both corners belong to the region; some writers state the number of rows where the last row is meant.
    rows, columns = stored_shape
    return Window(top, min(bottom + 1, max(rows, bottom)), left, min(right + 1, max(columns, right)))


def _image_region(
    path: Path, header: DicomDataset, stored_shape: tuple[int, int]
) -> tuple[DicomDataset, Window] | None:
    """Return the 2D image's region and place: tissue before flow, then the largest; None without a trusted one."""
    windows = [(region, _window(path, region, stored_shape)) for region in _regions(header)]
    if not all(_fits(window, stored_shape) for _, window in windows):
        return None
    images = [pair for pair in windows if pair[0].get("RegionSpatialFormat") == _FORMAT_2D]
    candidates = [pair for pair in images if pair[0].get("RegionDataType") == _TISSUE]
    candidates = candidates or [pair for pair in images if pair[0].get("RegionDataType") == _COLOUR_FLOW]
    candidates.sort(key=lambda pair: _area(pair[1]), reverse=True)
    for _, second in candidates[1:]:
        first = candidates[0][1]
        if not _overlap(first, second) and 2 * _area(second) >= _area(first):
            raise InputError(
                f"{path}: found two 2D images side by side (SequenceOfUltrasoundRegions: {first} and {second}), "
                "expected one view per file; leave the file out or export the views one by one"
            )
    return candidates[0] if candidates else None


def _fits(window: Window, stored_shape: tuple[int, int]) -> bool:
    rows, columns = stored_shape
    return 0 <= window.top < window.bottom <= rows and 0 <= window.left < window.right <= columns


def _area(window: Window) -> int:
    return (window.bottom - window.top) * (window.right - window.left)


def _overlap(first: Window, second: Window) -> bool:
    rows = first.top < second.bottom and second.top < first.bottom
    return rows and first.left < second.right and second.left < first.right


def _steps_mm(path: Path, header: DicomDataset, region: DicomDataset | None) -> tuple[float, float] | None:
    """Return the signed lengths of one pixel (y, x) in mm, None when unknown or no lengths."""
    if region is not None:
        units = (region.get("PhysicalUnitsYDirection"), region.get("PhysicalUnitsXDirection"))
        y_cm, x_cm = (number_in(region, path, f"PhysicalDelta{axis}") for axis in "YX")
        known = units == (_CENTIMETRES, _CENTIMETRES) and y_cm and x_cm
        return (y_cm * _MM_PER_CM, x_cm * _MM_PER_CM) if known else None
    # Not a tag of ultrasound, but what programs write that know no regions; regions that misfit outweigh it.
    spacing = numbers_in(header, path, "PixelSpacing", 2)
    return (spacing[0], spacing[1]) if spacing and all(spacing) and not _regions(header) else None


def _probe_affine(path: Path, steps_mm: tuple[float, float], region: DicomDataset | None) -> np.ndarray:
    """Return the affine (4, 4) from pixels (x, y) of the region to mm from its reference pixel."""
    y_mm, x_mm = steps_mm
    affine = np.diag([x_mm, y_mm, 1.0, 1.0])
    for axis, (name, step) in enumerate((("X", x_mm), ("Y", y_mm))):
        pixel = None if region is None else numbers_in(region, path, f"ReferencePixel{name}0")
        if pixel is not None:
            value_mm = _MM_PER_CM * number_in(region, path, f"ReferencePixelPhysicalValue{name}")
            affine[axis, 3] = value_mm - pixel[0] * step
    return affine


def _spacing(steps_mm: tuple[float, float] | None, frame_s: float | None) -> Spacing:
    if steps_mm is None:
        return Spacing(pixel_known=False, frame_s=frame_s)
    return Spacing((abs(steps_mm[0]), abs(steps_mm[1])), frame_s=frame_s)


def _frame_s(path: Path, header: DicomDataset) -> float | None:
    """Return the time between frames; of a vector of times the median, because a paused clip has one long one."""
    # The first entry is the time before the first frame, always zero.
    vector = (numbers_in(header, path, "FrameTimeVector", None) or [])[1:]
    from_vector = float(np.median(vector)) / 1000 if vector else 0.0
    from_time = number_in(header, path, "FrameTime") / 1000
    points_to_vector = header.get("FrameIncrementPointer") == _FRAME_TIME_VECTOR_TAG
    intervals = [from_vector, from_time] if points_to_vector else [from_time, from_vector]
    for name in ("CineRate", "RecommendedDisplayFrameRate"):
        rate = number_in(header, path, name)
        intervals.append(1 / rate if rate > 0 else 0.0)
    return next((interval for interval in intervals if interval > 0), None)


def _shows_flow(header: DicomDataset) -> bool:
    image_type = header.get("ImageType") or []
    kinds = str(image_type[3]) if len(image_type) > 3 else "0"
    try:
        doppler = bool(int(kinds, 16) & _COLOUR_DOPPLER_BIT)
    except ValueError:
        doppler = False
    in_region = any(region.get("RegionDataType") == _COLOUR_FLOW for region in _regions(header))
    return doppler or in_region or header.get("UltrasoundColorDataPresent") == 1
