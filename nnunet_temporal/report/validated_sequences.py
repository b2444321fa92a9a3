"""The sequences that a fold has validated: how well each went, and those to be drawn as masks, image and curves."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nnunetv2.evaluation.evaluate_predictions import load_summary_json
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.label_scheme import structure_mask
from nnunet_temporal.metrics.clinical import ed_es_frames
from nnunet_temporal.metrics.temporal import pixel_flicker_percent
from nnunet_temporal.sequences import Sequence

Scores = dict[str, dict[str, float]]
"""Case to structure to Dice over the labelled frames; NaN where a structure is in neither mask."""

_MM2_PER_CM2 = 100.0


def structures_of(labels: Mapping[str, int | list[int]]) -> dict[str, tuple[int, ...]]:
    """Return name to label values of every structure in the labels of a ``dataset.json``, regions as well."""
    values = {name: value for name, value in labels.items() if name not in ("background", "ignore")}
    return {name: (value,) if isinstance(value, int) else tuple(value) for name, value in values.items()}


@dataclass(frozen=True)
class Validation:
    """What nnU-Net's validation of a fold has left, and what it was made from.

    Attributes:
        masks: Folder of the predicted masks and their ``summary.json``.
        references: Folder of the expert's masks, named like the predicted ones.
        file_ending: File ending of both.
        reader: What reads both.
        dataset: The preprocessed sequences.
        sequences: The sequences by case, as in the manifest.
        labels: The labels of ``dataset.json``: name to value, or to all values of a region.
    """

    masks: Path
    references: Path
    file_ending: str
    reader: BaseReaderWriter
    dataset: nnUNetBaseDataset
    sequences: Mapping[str, Sequence]
    labels: Mapping[str, int | list[int]]

    @property
    def structures(self) -> dict[str, tuple[int, ...]]:
        """Name to label values of every structure, in the order of ``dataset.json``."""
        return structures_of(self.labels)


@dataclass(frozen=True, eq=False)
class ValidatedSequence:
    """One validated sequence.

    Attributes:
        sequence: Its entry in the manifest.
        structures: Name to label values.
        dice: Name to Dice over the labelled frames.
        image: Preprocessed intensities of the first channel, cropped and resampled in plane.
        box: Which frames, rows and columns of the masks the image covers.
        prediction: (T, Y, X) label values.
        reference: (T, Y, X) label values, meaningful in labelled frames.
        pixel_mm: Spacing of (Y, X) of the masks; in arbitrary units where the manifest says that it is unknown.
    """

    sequence: Sequence
    structures: dict[str, tuple[int, ...]]
    dice: dict[str, float]
    image: np.ndarray
    box: tuple[slice, slice, slice]
    prediction: np.ndarray
    reference: np.ndarray
    pixel_mm: tuple[float, float]

    @property
    def n_frames(self) -> int:
        """Number of frames, T."""
        return len(self.prediction)

    @property
    def labelled_frames(self) -> list[int]:
        """The frames that the expert drew."""
        return list(self.sequence.labelled_frames)

    @property
    def area_unit(self) -> str:
        """Unit of areas: cm², or px where no length is known."""
        return "cm²" if self.sequence.pixel_spacing_known else "px"

    def predicted(self, structure: str) -> np.ndarray:
        """Return the predicted masks (T, Y, X) of a structure."""
        return structure_mask(self.prediction, self.structures[structure])

    def expert(self, structure: str) -> np.ndarray:
        """Return the expert's masks (T, Y, X) of a structure, meaningful in labelled frames."""
        return structure_mask(self.reference, self.structures[structure])

    def areas(self, masks: np.ndarray) -> np.ndarray:
        """Return the areas (T,) of masks (T, Y, X), in :attr:`area_unit`."""
        pixel = math.prod(self.pixel_mm) / _MM2_PER_CM2 if self.sequence.pixel_spacing_known else 1.0
        return masks.sum(axis=(1, 2)) * pixel

    def flicker_percent(self, structure: str) -> float:
        """Return the flicker of the predicted pixels, NaN for fewer than three frames or without prediction."""
        return pixel_flicker_percent(self.predicted(structure), cyclic=self.sequence.cyclic)

    def compared_frames(self) -> tuple[int, int]:
        """Return the two labelled frames to look at first: ED and ES, in the order of time.

        Where one of these is unknown or not labelled, the labelled frames with the largest and the smallest area of
        all structures together.
        """
        ed, es, labelled = self.sequence.ed, self.sequence.es, self.labelled_frames
        if ed not in labelled or es not in labelled:
            drawn = structure_mask(self.reference, tuple({v for values in self.structures.values() for v in values}))
            ed, es = (labelled[place] for place in ed_es_frames(self.areas(drawn)[labelled]))
        return min(ed, es), max(ed, es)

    def shown_frames(self, count: int) -> list[int]:
        """Return the two compared frames and others evenly between them; beyond them where too few lie between.

        Args:
            count: How many, at least 2; a shorter sequence is shown whole.
        """
        first, last = self.compared_frames()
        last = min(max(last, first + count - 1), self.n_frames - 1)
        first = max(min(first, last - count + 1), 0)
        return np.linspace(first, last, min(count, last - first + 1)).round().astype(int).tolist()


def read_scores(validation: Validation) -> Scores:
    """Read the Dice of every validated sequence from nnU-Net's ``summary.json``."""
    scores: Scores = {}
    for entry in load_summary_json(str(validation.masks / "summary.json"))["metric_per_case"]:
        # A label is written as a number there, and a region as a tuple.
        dice = {(key,) if isinstance(key, int) else key: float(m["Dice"]) for key, m in entry["metrics"].items()}
        case = Path(entry["prediction_file"]).name.removesuffix(validation.file_ending)
        scores[case] = {name: dice[values] for name, values in validation.structures.items()}
    return scores


def mean_dice(dice: Iterable[float]) -> float:
    """Return the mean over the structures that are in one of the masks, NaN where none is."""
    known = [value for value in dice if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def choose_cases(scores: Scores) -> dict[str, str]:
    """Choose the worst, the median and the best sequence by mean Dice over structures.

    Args:
        scores: Those of all sequences; those without any structure are not chosen.

    Returns:
        Role to case: ``worst``, ``median`` (of an even number the lower one) and ``best``; fewer for fewer sequences.

    Raises:
        InputError: No sequence has a structure.
    """
    ranked = sorted((mean, case) for case, dice in scores.items() if not math.isnan(mean := mean_dice(dice.values())))
    if not ranked:
        raise InputError(
            f"found {len(scores)} validated sequences, expected one in which a structure is drawn or predicted"
        )
    places = {"worst": 0, "median": (len(ranked) - 1) // 2, "best": len(ranked) - 1}
    if len(ranked) < 3:
        places = {"worst": 0, "best": 1} if len(ranked) == 2 else {"only": 0}
    return {role: ranked[place][1] for role, place in places.items()}


def read_sequence(validation: Validation, case: str, dice: dict[str, float]) -> ValidatedSequence:
    """Read one validated sequence; ``dice`` is its entry in the scores."""
    data, _, _, properties = validation.dataset.load_case(case)
    frames, rows, columns = (slice(*map(int, ends)) for ends in properties["bbox_used_for_cropping"])
    prediction, reference = (
        validation.reader.read_seg(str(folder / f"{case}{validation.file_ending}"))[0][0]
        for folder in (validation.masks, validation.references)
    )
    y_mm, x_mm = (float(length) for length in properties["spacing"][1:])
    return ValidatedSequence(
        validation.sequences[case],
        validation.structures,
        dice,
        np.asarray(data[0]),
        (frames, rows, columns),
        prediction,
        reference,
        (y_mm, x_mm),
    )
