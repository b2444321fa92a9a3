"""Cine MRI from DICOM: slices by their place in space, phases by their time in the beat, whatever the files are called.

A stack may come as one series or, as on many scanners, as one series per slice.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.dicom_files import DicomDataset, DicomMovie, Window, number_in, required
from nnunet_temporal.datasets.dicom_planes import Plane, are_one_place, are_parallel, grouped, planes_of
from nnunet_temporal.datasets.image_io import Spacing
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.errors import InputError

# Steps of a stack may differ by this part of the step, steps of time by that part; a gap of one is beyond both.
_STEP_TOLERANCE = 0.1
_GAP = 1.5


def read_cine(files: list[tuple[Path, DicomDataset]]) -> list[DicomMovie]:
    """Describe the cine movies of one study: one per series and orientation of its planes.

    Series of one place each whose planes are parallel, of one size, and at different places are slices of one stack.
    What has no place with more than one frame, as a localiser, is no movie.

    Args:
        files: Paths and headers of the MR files of a study.

    Returns:
        Movies (T, Z, Y, X), slices in the order of the normal, row direction x column direction.

    Raises:
        InputError: A tag is missing; frames of one movie differ in size; a slice or a phase is missing or there twice;
            nothing tells the order of the phases. The message names the series, and the files where it can.
    """
    planes = [plane for path, header in files for plane in planes_of(path, header)]
    groups = grouped(planes, lambda a, b: a.source.series_uid == b.source.series_uid and are_parallel(a, b))
    stacks = [_slices_of(group) for group in groups]
    stacks = _joined([stack for stack in stacks if any(len(phases) > 1 for phases in stack)])
    return apply_to_all(stacks, _movie_of)


def _joined(stacks: list[list[list[Plane]]]) -> list[list[list[Plane]]]:
    """Join the series that are one slice of a stack each."""
    single = [stack[0] for stack in stacks if len(stack) == 1]
    joined = [stack for stack in stacks if len(stack) > 1]
    for group in grouped([phases[0] for phases in single], _may_be_neighbours):
        slices = [phases for phases in single if any(phases[0] is plane for plane in group)]
        places = grouped(group, are_one_place)
        if 1 < len(places) < len(group):
            twice = next(place for place in places if len(place) > 1)
            series = ", ".join(plane.source.series_uid for plane in twice)
            raise InputError(
                f"{twice[0].source.path.parent}: series {series} are slices of one stack and show the same place, "
                "expected each place once; keep one of them, move the others away"
            )
        by_place = sorted(slices, key=lambda phases: phases[0].along)
        joined += [by_place] if len(places) == len(group) else [[phases] for phases in slices]
    return joined


def _may_be_neighbours(first: Plane, second: Plane) -> bool:
    same_size = (first.header.Rows, first.header.Columns) == (second.header.Rows, second.header.Columns)
    same_frame = first.header.get("FrameOfReferenceUID") == second.header.get("FrameOfReferenceUID")
    return same_size and same_frame and first.pixel_mm == second.pixel_mm and are_parallel(first, second)


def _slices_of(planes: list[Plane]) -> list[list[Plane]]:
    """Return the planes by place, sorted along the normal."""
    return sorted(grouped(planes, are_one_place), key=lambda phases: phases[0].along)


def _movie_of(slices: list[list[Plane]]) -> DicomMovie:
    first = slices[0][0]
    where = f"series {first.source.series_uid} ({first.source.path.parent})"
    _check_equal_frames(slices, where)
    slices = _in_phase_order(slices, where)
    _check_phases(slices, where)
    step = _slice_step(slices, where)
    frame_s = _frame_s(slices)
    first = slices[0][0]
    rows, columns = int(first.header.Rows), int(first.header.Columns)
    return DicomMovie(
        patient_id=str(first.header.get("PatientID") or ""),
        study_uid=str(required(first.header, first.source.path, "StudyInstanceUID")),
        study_time=f"{first.header.get('StudyDate') or ''}{first.header.get('StudyTime') or ''}",
        view=f"s{number_in(first.header, first.source.path, 'SeriesNumber'):.0f}",
        frames=tuple(tuple(phases[t].source for phases in slices) for t in range(len(slices[0]))),
        stored_shape=(rows, columns),
        window=Window(0, rows, 0, columns),
        is_stack=True,
        spacing=Spacing(
            first.pixel_mm,
            slice_mm=None if step is None else float(step @ np.cross(*first.directions)),
            frame_s=frame_s,
        ),
        affine=_affine(first, step),
        cyclic=_covers_one_beat(first, len(slices[0]), frame_s),
    )


def _check_equal_frames(slices: list[list[Plane]], where: str) -> None:
    first = slices[0][0]
    expected = (first.header.Rows, first.header.Columns, *first.pixel_mm)
    for plane in (plane for phases in slices for plane in phases):
        found = (plane.header.Rows, plane.header.Columns, *plane.pixel_mm)
        if found != expected:
            raise InputError(
                f"{where}: {plane.source.path}: found rows, columns and pixel spacing {found}, expected {expected} as "
                f"in {first.source.path}; move frames of another size away"
            )


def _in_phase_order(slices: list[list[Plane]], where: str) -> list[list[Plane]]:
    """Sort the phases of each slice by trigger time; without such times by instance number, or acquisition time."""
    if all(plane.trigger_ms is not None for phases in slices for plane in phases):
        times = [[float(plane.trigger_ms or 0.0) for plane in phases] for phases in slices]
        # One time for all says nothing; a time that only some share is an image that is there twice.
        if all(len(set(of_slice)) > 1 for of_slice in times):
            ordered = [sorted(phases, key=lambda plane: plane.trigger_ms or 0.0) for phases in slices]
            for phases in ordered:
                _check_no_phase_twice(phases, where)
            return ordered
    for index in range(2):
        keys = [[plane.order[index] for plane in phases] for phases in slices]
        if all(len(set(of_slice)) == len(of_slice) for of_slice in keys):
            return [sorted(phases, key=lambda plane: plane.order[index]) for phases in slices]
    raise InputError(
        f"{where}: found no TriggerTime, InstanceNumber or AcquisitionTime that differs between the frames of a slice; "
        "without one their order is unknown"
    )


def _check_no_phase_twice(phases: list[Plane], where: str) -> None:
    for one, other in pairwise(phases):
        if one.trigger_ms == other.trigger_ms:
            raise InputError(
                f"{where}: {one.source.path} and {other.source.path} show the same place at the same trigger time, "
                f"{one.trigger_ms:g} ms; expected each phase once: keep one kind of image (magnitude or phase) and one "
                "acquisition per series"
            )


def _check_phases(slices: list[list[Plane]], where: str) -> None:
    """Check that all slices have the same number of phases, as many as stated, without a gap in time."""
    first = slices[0][0]
    stated = int(number_in(first.header, first.source.path, "CardiacNumberOfImages"))
    most = max(stated, *(len(phases) for phases in slices))
    usual_ms = 1000 * (_frame_s(slices) or np.inf)
    problems = []
    for z, phases in enumerate(slices):
        gap = _gap_in_time(phases, usual_ms)
        if len(phases) < most or gap:
            place = f"slice {z} (counted from 0, {phases[0].along:.1f} mm along the normal)"
            problems.append(f"{place} has {len(phases)} of {most} phases{gap}")
    if problems:
        raise InputError(f"{where}: found missing phases: {'; '.join(problems)}; restore the missing files")


def _gap_in_time(phases: list[Plane], usual_ms: float) -> str:
    times = [plane.trigger_ms for plane in phases if plane.trigger_ms is not None]
    steps = np.diff(times)
    if len(times) < len(phases) or not steps.size or steps.max() <= _GAP * usual_ms:
        return ""
    at = int(steps.argmax())
    return f", none between trigger times {times[at]:g} and {times[at + 1]:g} ms"


def _slice_step(slices: list[list[Plane]], where: str) -> np.ndarray | None:
    """Return the step from slice to slice (3,) in mm, None for a single slice."""
    if len(slices) == 1:
        return None
    steps = np.diff([phases[0].position for phases in slices], axis=0)
    step = np.median(steps, axis=0)
    wrong = np.flatnonzero(np.linalg.norm(steps - step, axis=1) > _STEP_TOLERANCE * np.linalg.norm(step))
    if wrong.size:
        z = int(wrong[0])
        raise InputError(
            f"{where}: found {np.linalg.norm(steps[z]):.2f} mm from slice {z} to {z + 1} (counted from 0), expected "
            f"{np.linalg.norm(step):.2f} mm in the same direction as elsewhere; a slice is missing between them, or "
            "slices of two stacks are in one: restore it or move them away"
        )
    return (slices[-1][0].position - slices[0][0].position) / (len(slices) - 1)


def _frame_s(slices: list[list[Plane]]) -> float | None:
    """Return the median time between phases; breath-holds differ a little, so the median over all slices."""
    times = [[plane.trigger_ms for plane in phases if plane.trigger_ms is not None] for phases in slices]
    steps = np.concatenate([np.diff(of_slice) for of_slice in times])
    return float(np.median(steps)) / 1000 if steps.size and np.median(steps) > 0 else None


def _affine(first: Plane, step: np.ndarray | None) -> np.ndarray:
    """Return the affine (4, 4) to NIfTI's axes; a single slice, whose thickness nobody asks, gets a step of 1 mm."""
    y_mm, x_mm = first.pixel_mm
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = first.directions[0] * x_mm, first.directions[1] * y_mm
    affine[:3, 2] = np.cross(*first.directions) if step is None else step
    affine[:3, 3] = first.position
    # DICOM's axes run to the left and to the back of the patient, NIfTI's to the right and to the front.
    affine[:2] *= -1
    return affine


def _covers_one_beat(first: Plane, n_frames: int, frame_s: float | None) -> bool:
    """Return whether the phases fill the interval between two R waves, to within half a frame."""
    interval_s = number_in(first.header, first.source.path, "NominalInterval") / 1000
    return frame_s is not None and interval_s > 0 and abs(n_frames * frame_s - interval_s) <= frame_s / 2
