"""A validated fold as nnU-Net leaves it, of squares with known areas and overlaps, shared by tests. Not a test."""

import multiprocessing
import multiprocessing.dummy
import multiprocessing.pool  # it takes get_context when it is imported, which must be the real one
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from mask_folders import IGNORE, LABELS, LV, square, write_masks
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_temporal.report.validated_sequences import Validation
from nnunet_temporal.sequences import Sequence

SIZE, TOP, LEFT, SIDE = 60, 20, 20, 20
FRAMES, ED, ES = 9, 1, 5
# Where the preprocessed image lies on the masks, two of its pixels to one of theirs, and what is bright in it.
ROWS, COLUMNS, ZOOM = slice(10, 50), slice(5, 55), 2
BRIGHT_ROWS, BRIGHT_COLUMNS = slice(42, 47), slice(14, 19)


@dataclass(frozen=True)
class Preprocessed:
    """What a trainer's dataset of preprocessed sequences does: it loads a case."""

    frames: dict[str, int]
    pixel_mm: tuple[float, float]

    def load_case(self, case: str) -> tuple[np.ndarray, None, None, dict[str, Any]]:
        """Return two channels, the first with a block, bright in even frames; frame 0 is cropped away if not alone."""
        first = min(1, self.frames[case] - 1)
        box = (slice(first, self.frames[case]), ROWS, COLUMNS)
        image = np.zeros((2, *(part.stop - part.start for part in box)), np.float32)
        image[0][
            first % 2 :: 2,
            BRIGHT_ROWS.start - ROWS.start : BRIGHT_ROWS.stop - ROWS.start,
            BRIGHT_COLUMNS.start - COLUMNS.start : BRIGHT_COLUMNS.stop - COLUMNS.start,
        ] = 1
        image[1] = 1 - image[0]
        image = image.repeat(ZOOM, axis=2).repeat(ZOOM, axis=3)
        bounds = [[part.start, part.stop] for part in box]
        return image, None, None, {"bbox_used_for_cropping": bounds, "spacing": [10.0, *self.pixel_mm]}


def squares(shifts: list[int | None], label: int = LV) -> np.ndarray:
    """Return labels (T, Y, X) with one square per frame, moved to the right by its shift; None for no square."""
    return np.stack(
        [
            square(0, 0, 0, shape=(SIZE, SIZE))
            if shift is None
            else square(TOP, LEFT + shift, SIDE, label, shape=(SIZE, SIZE))
            for shift in shifts
        ]
    )


def only_labelled(masks: np.ndarray, labelled: tuple[int, ...]) -> np.ndarray:
    """Return the masks (T, Y, X) with the ignore label in all other frames."""
    known = np.isin(np.arange(len(masks)), labelled)[:, None, None]
    return np.where(known, masks, IGNORE).astype(np.uint8)


def write_fold(
    root: Path,
    predictions: dict[str, np.ndarray],
    references: dict[str, np.ndarray] | None = None,
    labels: dict[str, int | list[int]] = LABELS,
    pixel_mm: tuple[float, float] = (1.0, 1.0),
    **fields: object,
) -> Validation:
    """Write a fold's ``validation`` and the dataset's ``gt_segmentations``, with nnU-Net's own ``summary.json``.

    Args:
        root: Folder to write to.
        predictions: Case to labels (T, Y, X).
        references: The expert's, with the ignore label; the unmoved square at ED and ES where not given.
        labels: Those of ``dataset.json``.
        pixel_mm: Spacing of (Y, X).
        fields: Other fields of the manifest's entries.
    """
    fields = {"labelled_frames": (ED, ES), "ed": ED, "es": ES, "cyclic": True, "frame_interval_s": 0.04} | fields
    usual = only_labelled(squares([0] * FRAMES), (ED, ES))
    references = {case: usual for case in predictions} | (references or {})
    validation = Validation(
        write_masks(root / "validation", predictions, pixel_mm),
        write_masks(root / "gt_segmentations", references, pixel_mm),
        ".nii.gz",
        SimpleITKIO(),
        Preprocessed({case: len(masks) for case, masks in predictions.items()}, pixel_mm),
        {case: Sequence(case, case, len(masks), **fields) for case, masks in predictions.items()},
        labels,
    )
    # Threads for nnU-Net's pool: spawned processes would import torch for seconds each.
    with mock.patch.object(multiprocessing, "get_context", lambda method: multiprocessing.dummy):
        regions = [v if len(v) > 1 else v[0] for v in validation.structures.values()]
        arguments = (SimpleITKIO(), ".nii.gz", regions, IGNORE, 1)
        summary = str(validation.masks / "summary.json")
        compute_metrics_on_folder(str(validation.references), str(validation.masks), summary, *arguments)
    return validation
