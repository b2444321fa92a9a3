"""What a user may choose about an evaluation."""

from dataclasses import dataclass

# Figures of other programs, repeated with their faults so that published tables can be compared with.
CAMUS_SCRIPT, POOLED_DICE, MEDPY_POOLED, ROWWISE_DICE = "camus_script", "pooled_dice", "medpy_pooled", "rowwise_dice"
COMPATIBILITY_MODES = (CAMUS_SCRIPT, POOLED_DICE, MEDPY_POOLED, ROWWISE_DICE)


@dataclass(frozen=True)
class Options:
    """What to measure, and how.

    Attributes:
        nsd_tolerance: Tolerance of the normalised surface Dice in mm (in pixels where the spacing is unknown).
        compat: Some of ``COMPATIBILITY_MODES``.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
    """

    nsd_tolerance: float = 2.0
    compat: tuple[str, ...] = ()
    seed: int = 0
    resamples: int = 2000
