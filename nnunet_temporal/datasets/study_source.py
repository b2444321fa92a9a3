"""What a converter says about one study, and the check every study passes before anything is written."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from nnunet_temporal.datasets.image_io import Spacing
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Sequence, case_name

IGNORE = "ignore"


@dataclass(frozen=True)
class StudySource:
    """One image of a study, loaded only when needed: a stack of slices, or the one sequence of a view.

    Attributes:
        study: Name of the study; several sources may share it when their views differ.
        load_image: Returns grey values (T, Z, Y, X) or (T, Y, X).
        load_labels: Returns label values of the same shape, unlabelled pixels and frames holding the ignore label; None
            when nothing is labelled.
        spacing: Distances between pixels, slices and frames.
        view: Name of the view, None when there is only one.
        ed: Index of the end-diastolic frame, None when unknown.
        es: Index of the end-systolic frame, None when unknown.
        cyclic: Whether the frames cover exactly one heart beat.
        source: Path of the original file, named in messages and in the manifest.
    """

    study: str
    load_image: Callable[[], np.ndarray]
    load_labels: Callable[[], np.ndarray] | None = None
    spacing: Spacing = field(default_factory=Spacing)
    view: str | None = None
    ed: int | None = None
    es: int | None = None
    cyclic: bool = False
    source: str = ""


def by_slice(study: np.ndarray) -> dict[int | None, np.ndarray]:
    """Cut an array into its sequences (T, Y, X): {slice: sequence} for (T, Z, Y, X), {None: array} for (T, Y, X)."""
    if study.ndim == 3:
        return {None: study}
    return {z: study[:, z] for z in range(study.shape[1])}


def inspect_source(source: StudySource, labels: dict[str, int]) -> list[Sequence]:
    """Load a study, check its pixels and labels, and describe its sequences.

    Args:
        source: The study.
        labels: Label names and values of the dataset, the ignore label among them.

    Returns:
        One entry for the manifest per slice, or one for a study without slices.

    Raises:
        InputError: Wrong axes, zero frames, NaN or infinite pixels, labels of another shape, or label values that are
            not in ``labels``.
    """
    where = f"study {source.study!r} ({source.source})"
    image = source.load_image()
    if image.ndim not in (3, 4) or 0 in image.shape:
        raise InputError(f"{where}: found shape {image.shape}, expected non-empty (T, Z, Y, X) or (T, Y, X)")
    if not np.isfinite(image).all():
        raise InputError(f"{where}: found NaN or infinite pixels, expected finite ones")
    masks = source.load_labels() if source.load_labels else np.full(image.shape, labels[IGNORE], np.uint8)
    if masks.shape != image.shape:
        raise InputError(f"{where}: found labels of shape {masks.shape}, expected {image.shape}, the image's shape")
    unknown = sorted(set(np.unique(masks).tolist()) - set(labels.values()))
    if unknown:
        raise InputError(f"{where}: found label values {unknown}, expected only those of dataset.json: {labels}")
    return describe_sequences(source, masks != labels[IGNORE])


def describe_sequences(source: StudySource, is_labelled: np.ndarray) -> list[Sequence]:
    """Describe the sequences of a study for the manifest.

    Args:
        source: The study.
        is_labelled: (T, Z, Y, X) or (T, Y, X), bool; a frame with any True pixel counts as labelled.

    Returns:
        One entry per slice, or one for a study without slices.
    """
    return [_describe(source, z, sequence) for z, sequence in by_slice(is_labelled).items()]


def _describe(source: StudySource, z: int | None, is_labelled: np.ndarray) -> Sequence:
    return Sequence(
        case=case_name(source.study, z, source.view),
        study=source.study,
        n_frames=len(is_labelled),
        labelled_frames=tuple(np.flatnonzero(is_labelled.any(axis=(1, 2))).tolist()),
        slice=z,
        view=source.view,
        ed=source.ed,
        es=source.es,
        cyclic=source.cyclic,
        frame_interval_s=source.spacing.frame_s,
        slice_spacing_mm=source.spacing.slice_mm,
        pixel_spacing_known=source.spacing.pixel_known,
        source=source.source,
    )
