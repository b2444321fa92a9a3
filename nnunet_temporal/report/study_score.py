"""How good the masks of one study are: overlap, volumes, flicker, and the mean mask as the trivial answer."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nnunet_temporal.metrics.clinical import ejection_fraction_percent, volume_curve_ml
from nnunet_temporal.metrics.overlap import dice
from nnunet_temporal.metrics.temporal import area_roughness_percent, pixel_flicker_percent
from nnunet_temporal.report.study_result import StudyResult


@dataclass(frozen=True)
class StudyScore:
    """The figures of one study; field names carry the units.

    Attributes:
        dice_ed: 3D Dice over the slices labelled at ED.
        dice_es: 3D Dice over the slices labelled at ES.
        edv_ml: Predicted volume at the expert's ED frame, over the slices labelled in both phases.
        esv_ml: Predicted volume at the expert's ES frame, over the same slices.
        ef_percent: Predicted ejection fraction from these two.
        edv_ml_reference: The expert's volume at ED, same slices.
        esv_ml_reference: The expert's volume at ES, same slices.
        ef_percent_reference: The expert's ejection fraction from these two.
        area_roughness_percent: Flicker of the predicted areas, over the slices labelled in both phases.
        pixel_flicker_percent: Flicker of the predicted pixels, over the same slices.
    """

    dice_ed: float
    dice_es: float
    edv_ml: float
    esv_ml: float
    ef_percent: float
    edv_ml_reference: float
    esv_ml_reference: float
    ef_percent_reference: float
    area_roughness_percent: float
    pixel_flicker_percent: float

    @property
    def mean_dice(self) -> float:
        """Mean of the Dice at ED and at ES."""
        return (self.dice_ed + self.dice_es) / 2


@dataclass(frozen=True)
class MeanMask:
    """Where most training studies have the structure, whatever the slice: an answer without looking at the image.

    Attributes:
        ed: (Y, X) boolean mask for end diastole.
        es: (Y, X) boolean mask for end systole.
    """

    ed: np.ndarray
    es: np.ndarray


def score_study(result: StudyResult) -> StudyScore:
    """Score the predicted masks of a study against the expert's.

    Args:
        result: The study; at least one slice must be labelled at ED and at ES.

    Returns:
        The score. Flicker is NaN when nothing was predicted.

    Raises:
        ValueError: If no slice is labelled at both ED and ES.
    """
    slices = result.compared_slices
    if not slices.any():
        raise ValueError(f"{result.name}: no slice is labelled at both ED (frame {result.ed}) and ES ({result.es})")
    predicted_ml = volume_curve_ml(result.prediction[:, slices], result.spacing_mm)
    expert_ml = volume_curve_ml(result.reference[:, slices], result.spacing_mm)
    edv_ml, esv_ml = float(predicted_ml[result.ed]), float(predicted_ml[result.es])
    edv_ml_reference, esv_ml_reference = float(expert_ml[result.ed]), float(expert_ml[result.es])
    compared = result.prediction[:, slices]
    return StudyScore(
        dice_ed=_phase_dice(result, result.ed, result.prediction[result.ed]),
        dice_es=_phase_dice(result, result.es, result.prediction[result.es]),
        edv_ml=edv_ml,
        esv_ml=esv_ml,
        ef_percent=ejection_fraction_percent(edv_ml, esv_ml),
        edv_ml_reference=edv_ml_reference,
        esv_ml_reference=esv_ml_reference,
        ef_percent_reference=ejection_fraction_percent(edv_ml_reference, esv_ml_reference),
        area_roughness_percent=area_roughness_percent(compared.sum(axis=(2, 3)), cyclic=result.cyclic),
        pixel_flicker_percent=pixel_flicker_percent(compared, cyclic=result.cyclic),
    )


def mean_mask(training_masks: Iterable[tuple[np.ndarray, np.ndarray]]) -> MeanMask:
    """Average the experts' masks of the training studies and keep the pixels set in at least half of them.

    Args:
        training_masks: Per study the (N, Y, X) boolean masks of all slices labelled at ED, and those at ES. All
            studies share one (Y, X) grid.

    Returns:
        The mean mask of each phase.

    Raises:
        ValueError: If there is no study, or the grids differ.
    """
    ed_masks, es_masks = [], []
    for ed, es in training_masks:
        ed_masks.append(ed)
        es_masks.append(es)
    if not ed_masks:
        raise ValueError("the mean mask needs at least one training study")
    grids = {masks.shape[1:] for masks in ed_masks + es_masks}
    if len(grids) > 1:
        raise ValueError(f"the mean mask needs one common (Y, X) grid, got {sorted(grids)}")
    return MeanMask(
        ed=np.concatenate(ed_masks).mean(axis=0) >= 0.5,
        es=np.concatenate(es_masks).mean(axis=0) >= 0.5,
    )


def mean_mask_dice(result: StudyResult, trivial: MeanMask) -> float:
    """Score the mean mask as the answer for every labelled slice, as :func:`score_study` scores a prediction.

    Args:
        result: The study; its prediction is not looked at.
        trivial: The mean mask on the study's (Y, X) grid.

    Returns:
        Mean of the 3D Dice at ED and at ES.
    """
    grid = result.image.shape[1:]  # (Z, Y, X)
    ed = _phase_dice(result, result.ed, np.broadcast_to(trivial.ed, grid))
    es = _phase_dice(result, result.es, np.broadcast_to(trivial.es, grid))
    return (ed + es) / 2


def _phase_dice(result: StudyResult, frame: int, prediction: np.ndarray) -> float:
    """Return the 3D Dice of a (Z, Y, X) answer over the slices labelled in ``frame``."""
    slices = result.labelled[frame]
    return dice(prediction[slices], result.reference[frame][slices])
