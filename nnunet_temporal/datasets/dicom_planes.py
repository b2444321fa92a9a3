"""The 2D frames of MR files, each with its place in the patient and its time in the beat.

Classic MR has one file per frame, enhanced MR many frames per file, described in functional groups. Places: DICOM PS3.3
C.7.6.2.1.1; functional groups: C.7.6.16.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_temporal.datasets.dicom_files import (
    DicomDataset,
    FrameSource,
    frame_size,
    number_in,
    numbers_in,
    required,
    required_numbers,
)
from nnunet_temporal.errors import InputError

CLASSIC = "1.2.840.10008.5.1.4.1.1.4"
# Enhanced MR Image Storage, and the form into which archives convert classic series.
ENHANCED = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
SOP_CLASSES = (CLASSIC, *ENHANCED)

# Positions are written with few decimals: what is closer than this is one place.
_SAME_PLACE_MM = 0.1
_SAME_DIRECTION = 1e-3
# Directions are unit vectors, perpendicular to each other, but written with few digits.
_DIRECTION_DIGITS = 0.01


@dataclass(frozen=True)
class Plane:
    """One 2D frame with its place and time.

    Attributes:
        source: Where it came from.
        header: The header of its file.
        directions: (2, 3); directions of rising x and of rising y in the patient (DICOM's axes).
        position: (3,); centre of the first pixel in mm.
        pixel_mm: Spacing (y, x).
        trigger_ms: Time after the R wave, None when unknown.
        order: What orders phases where trigger times do not: instance number, or acquisition time.
    """

    source: FrameSource
    header: DicomDataset
    directions: np.ndarray
    position: np.ndarray
    pixel_mm: tuple[float, float]
    trigger_ms: float | None
    order: tuple[float, float]

    @property
    def along(self) -> float:
        """Position along the normal of the plane, in mm."""
        return float(self.position @ np.cross(*self.directions))


def planes_of(path: Path, header: DicomDataset) -> list[Plane]:
    """Return the frames of a classic or enhanced MR file.

    Raises:
        InputError: A tag that places frames or names instances is missing or damaged.
    """
    if header.SOPClassUID == CLASSIC:
        return [_plane(path, header, [header])]
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    groups = required(header, path, "PerFrameFunctionalGroupsSequence")
    # Later values win: what is said of one frame, before what is said of all.
    return [_plane(path, header, [*_macros(shared), *_macros(group)], number) for number, group in enumerate(groups)]


def are_parallel(first: Plane, second: Plane) -> bool:
    """Return whether two planes have the same directions in the patient."""
    return bool(np.abs(first.directions - second.directions).max() < _SAME_DIRECTION)


def are_one_place(first: Plane, second: Plane) -> bool:
    """Return whether two parallel planes lie in the same place."""
    return bool(np.abs(first.position - second.position).max() < _SAME_PLACE_MM)


def grouped(planes: list[Plane], same: Callable[[Plane, Plane], bool]) -> list[list[Plane]]:
    """Return the planes in groups of those that are the same as the first of their group."""
    groups: list[list[Plane]] = []
    for plane in planes:
        group = next((group for group in groups if same(group[0], plane)), None)
        if group is None:
            groups.append([plane])
        else:
            group.append(plane)
    return groups


def _macros(group: DicomDataset | None) -> list[DicomDataset]:
    """Return the items of all functional groups of a frame, or of all frames."""
    if group is None:
        return []
    return [element.value[0] for element in group if element.VR == "SQ" and element.value]


def _plane(path: Path, header: DicomDataset, items: list[DicomDataset], number: int | None = None) -> Plane:
    facts: dict[str, Any] = {}
    for item in items:
        facts.update({element.keyword: element.value for element in item if element.value not in (None, "")})
    trigger = numbers_in(facts, path, "TriggerTime") or numbers_in(facts, path, "NominalCardiacTriggerDelayTime")
    row_mm, column_mm = required_numbers(facts, path, "PixelSpacing", 2)
    x, y, z = required_numbers(facts, path, "ImagePositionPatient", 3)
    directions = np.reshape(required_numbers(facts, path, "ImageOrientationPatient", 6), (2, 3))
    frame_size(header, path)
    if min(row_mm, column_mm) <= 0 or np.abs(directions @ directions.T - np.eye(2)).max() > _DIRECTION_DIGITS:
        raise InputError(
            f"{path}: found PixelSpacing {[row_mm, column_mm]} and ImageOrientationPatient {directions.tolist()}, "
            "expected lengths above 0 and two perpendicular directions of length 1; correct the header"
        )
    source = FrameSource(
        path,
        str(required(header, path, "SeriesInstanceUID")),
        str(header.SOPClassUID),
        str(required(header, path, "SOPInstanceUID")),
        number or 0,
        number is not None,
        (numbers_in(facts, path, "RescaleSlope") or [1.0])[0],
        number_in(facts, path, "RescaleIntercept"),
        (x, y, z),
    )
    return Plane(
        source,
        header,
        directions,
        np.array([x, y, z]),
        (row_mm, column_mm),
        trigger[0] if trigger else None,
        (
            number_in(header, path, "InstanceNumber") if number is None else float(number),
            number_in(header, path, "AcquisitionTime"),
        ),
    )
