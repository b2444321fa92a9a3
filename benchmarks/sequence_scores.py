"""Scores of sequences by the truth of every frame, and tables of many runs.

* ``dice``: mean over frames and structures, in points.
* ``temporal error``, in percent of the mean true area: how far the area of a structure is from the mean of the frame
  before and the one after, less what it is in the truth; the absolute value, averaged over frames and structures.
  Motion alone costs nothing; a frozen mask pays what it misses of the truth's.
* ``roughness`` of the areas and ``flicker`` of the pixels, in percent: they need no truth, a beating heart has some of
  both, and a frozen mask has none.
* ``area change`` of the ventricle from ED to ES over the true one: 1 is right, a frozen mask has 0.
"""

from collections.abc import Mapping

import numpy as np
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from shared_plans import Dataset

from nnunet_temporal.datasets.phantom.apical_heart import LABELS
from nnunet_temporal.datasets.phantom.dataset import TRUTH_FOLDER
from nnunet_temporal.metrics.bootstrap import compare_paired
from nnunet_temporal.metrics.overlap import dice
from nnunet_temporal.metrics.shape_curves import ShapeCurves
from nnunet_temporal.metrics.temporal import area_change_against_truth, area_roughness_percent, pixel_flicker_percent
from nnunet_temporal.metrics.temporal_consistency import neighbour_interpolation_errors
from nnunet_temporal.sequences import Manifest, Sequence

STRUCTURES = {name: value for name, value in LABELS.items() if value}
COLUMNS = ("dice", "temporal error", "roughness", "flicker", "area change")

Scores = dict[str, dict[str, float]]
"""Value per column and study."""


def held_out(dataset: Dataset) -> list[Sequence]:
    """Return the held-out sequences of a phantom dataset, which alone have no preprocessed data."""
    training = Manifest.load(dataset.preprocessed)
    return [sequence for case, sequence in Manifest.load(dataset.raw).items() if case not in training]


def score_all(masks: Mapping[str, np.ndarray], dataset: Dataset) -> Scores:
    """Score the masks of the held-out sequences by the truth, and average over the views of a study."""
    values: dict[str, list[dict[str, float]]] = {}
    for sequence in held_out(dataset):
        scores = score_sequence(masks[sequence.case], truth_of(sequence, dataset), sequence)
        values.setdefault(sequence.study, []).append(scores)
    return {
        column: {study: float(np.mean([view[column] for view in views])) for study, views in values.items()}
        for column in COLUMNS
    }


def truth_of(sequence: Sequence, dataset: Dataset) -> np.ndarray:
    """Read the truth of a sequence of a phantom dataset, (T, Y, X)."""
    return SimpleITKIO().read_seg(str(dataset.raw / TRUTH_FOLDER / f"{sequence.case}.nii.gz"))[0][0]


def score_sequence(mask: np.ndarray, truth: np.ndarray, sequence: Sequence) -> dict[str, float]:
    """Score label maps (T, Y, X) by the truth of every frame."""
    areas, true_areas = areas_of(mask), areas_of(truth)
    phases = np.array([sequence.ed, sequence.es])
    return {
        "dice": mean_dice(mask, truth),
        "temporal error": temporal_error_percent(areas, true_areas, cyclic=sequence.cyclic),
        "roughness": area_roughness_percent(np.stack(list(areas.values()), 1), cyclic=sequence.cyclic),
        "flicker": pixel_flicker_percent(mask > 0, cyclic=sequence.cyclic),
        "area change": area_change_against_truth(areas["LV"][phases], true_areas["LV"][phases]),
    }


def areas_of(mask: np.ndarray) -> dict[str, np.ndarray]:
    """Count the pixels (T,) of each structure in label maps (T, Y, X)."""
    return {name: (mask == value).sum((1, 2)) for name, value in STRUCTURES.items()}


def mean_dice(mask: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean Dice of label maps (T, Y, X) over frames and structures, in points."""
    overlaps = [
        dice(found == value, true == value)
        for found, true in zip(mask, truth, strict=True)
        for value in STRUCTURES.values()
    ]
    return 100 * float(np.nanmean(overlaps))


def temporal_error_percent(areas: dict[str, np.ndarray], truth: dict[str, np.ndarray], *, cyclic: bool) -> float:
    """Return how differently from the truth areas (T,) leave the mean of their neighbours in time."""
    bounds = {name: (0.0, float(curve.mean())) for name, curve in truth.items()}
    ours, theirs = (
        neighbour_interpolation_errors(ShapeCurves(curves, {}), bounds, cyclic=cyclic) for curves in (areas, truth)
    )
    return 100 * float(np.mean([np.abs(ours[name] - theirs[name]) for name in truth]))


def print_table(results: Mapping[str, list[Scores]], baselines: Mapping[str, str], columns: tuple[str, ...]) -> None:
    """Print for each column the arms' means, their spread over the seeds, and how they compare to their baselines."""
    for column in columns:
        print(
            f"\n{column}: mean +- SD of the seeds; minus the baseline, studies paired [95 % interval], x the baseline"
        )
        for name, runs in results.items():
            per_seed = [np.mean(list(scores[column].values())) for scores in runs]
            difference = _difference(runs, results[baselines[name]], column) if name in baselines else ""
            print(f"  {name:52} {np.mean(per_seed):7.3f} +- {np.std(per_seed):6.3f}  {difference}")


def _difference(runs: list[Scores], baseline: list[Scores], column: str) -> str:
    studies = list(baseline[0][column])
    ours, theirs = (
        np.mean([[scores[column][study] for study in studies] for scores in arm], axis=0) for arm in (runs, baseline)
    )
    compared = compare_paired(ours, theirs, studies)
    interval = f"[{compared.difference.lower:+.3f}, {compared.difference.upper:+.3f}]"
    return f"{compared.difference.mean:+8.3f} {interval} x {np.mean(ours) / np.mean(theirs):.2f}"
