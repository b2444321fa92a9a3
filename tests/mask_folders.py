"""Folders of reference and predicted masks, and stacks of them in memory, shared by tests. Not a test."""

import json
from pathlib import Path

import nibabel
import numpy as np

from nnunet_temporal.datasets.image_io import write_sequence
from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.evaluation.stack import Stack
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, Sequence

LV, MYO, IGNORE = 1, 2, 9
LABELS = {"background": 0, "LV": LV, "MYO": MYO, "ignore": IGNORE}
SCHEME = LabelScheme({"LV": LV, "MYO": MYO}, IGNORE, {"LV": "LV", "MYO": "MYO"})
LV_ONLY = LabelScheme({"LV": LV}, IGNORE, {"LV": "LV"})


def square(top: int, left: int, size: int = 4, label: int = LV, shape: tuple[int, int] = (12, 14)) -> np.ndarray:
    """Return labels (Y, X) with one square."""
    labels = np.zeros(shape, np.uint8)
    labels[top : top + size, left : left + size] = label
    return labels


def make_stack(prediction: np.ndarray, reference: np.ndarray, **fields: object) -> Stack:
    """Return a stack from labels (T, Z, Y, X) or (T, Y, X), the reference with the ignore label.

    ``fields`` are those of the manifest's entries, and ``pixel_mm``, (1, 1) unless given.
    """
    pixel_mm = fields.pop("pixel_mm", (1.0, 1.0))
    slices = list(range(prediction.shape[1])) if prediction.ndim == 4 else [None]
    if prediction.ndim == 3:
        prediction, reference = prediction[:, None], reference[:, None]
    entries = tuple(
        Sequence(f"s{'' if z is None else f'_z{z:02d}'}", "s", len(prediction), (), slice=z, **fields) for z in slices
    )
    valid = reference != IGNORE
    return Stack(
        entries,
        prediction,
        np.where(valid, reference, 0).astype(np.uint8),
        valid,
        valid.any(axis=(2, 3)),
        pixel_mm,
        entries[0].slice_spacing_mm,
        reference.shape[2],
    )


def write_masks(folder: Path, masks: dict[str, np.ndarray], pixel_mm: tuple[float, float] = (2.0, 1.0)) -> Path:
    """Write labels (T, Y, X) as sequences, and (T, Z, Y, X) as one 4D file with 8 mm between slices."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, labels in masks.items():
        path = folder / f"{name}.nii.gz"
        if labels.ndim == 3:
            write_sequence(labels, pixel_mm, path)
            continue
        image = nibabel.Nifti1Image(labels.T, np.diag([pixel_mm[1], pixel_mm[0], 8.0, 1.0]))
        image.header.set_zooms((pixel_mm[1], pixel_mm[0], 8.0, 1.0))
        image.header.set_xyzt_units("mm")
        nibabel.save(image, path)
    return folder


def write_dataset(
    root: Path, reference: dict[str, np.ndarray], entries: dict[str, dict] | None = None, labels: dict | None = None
) -> Path:
    """Write ``root/labelsTs`` and ``dataset.json``, and a manifest with these fields for each case; return labelsTs."""
    folder = write_masks(root / "labelsTs", reference)
    (root / "dataset.json").write_text(json.dumps({"labels": labels or LABELS, "file_ending": ".nii.gz"}))
    if entries is not None:
        sequences = {
            case: Sequence(case, **{"labelled_frames": (), "n_frames": len(reference[case])} | fields)
            for case, fields in entries.items()
        }
        Manifest(sequences).write(root / MANIFEST_NAME)
    return folder
