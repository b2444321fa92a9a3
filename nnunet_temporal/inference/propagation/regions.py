"""Which slices of a stack show the base, the middle and the apex of the heart, and at which end the apex is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nnunet_temporal.errors import InputError

Region = Literal["base", "middle", "apex"]
ApexAt = Literal["first", "last"]
REGIONS: tuple[Region, ...] = ("base", "middle", "apex")

_LEAST_AREA = 0.02
"""Share of the largest slice's area from which on a slice counts as showing the heart."""
_LEAST_RATIO = 1.15
"""How many times larger the heart must be at one end than at the other to call it the base."""


@dataclass(frozen=True)
class Regions:
    """The region of every slice.

    Attributes:
        names: Region of each slice, in the order of the stack.
        apex_at: The end of the stack at which the apex is; None if it cannot be told, and no slice is apical then.
    """

    names: tuple[Region, ...]
    apex_at: ApexAt | None

    @property
    def apical(self) -> frozenset[int]:
        """Slices of the apex that are propagated along time as well; a stack of two or fewer has none."""
        if len(self.names) < 3:
            return frozenset()
        return frozenset(z for z, name in enumerate(self.names) if name == "apex")


def heart_slices(areas: Sequence[float]) -> range:
    """Return the slices from the first to the last that shows the heart, by its area in each; empty if none does."""
    shown = np.flatnonzero(np.asarray(areas) > _LEAST_AREA * max(areas, default=0))
    return range(int(shown[0]), int(shown[-1]) + 1) if len(shown) else range(0)


def find_apex(areas: Sequence[float]) -> ApexAt | None:
    """Tell at which end the apex is: where the heart is smaller. None if both ends are about as large.

    Args:
        areas: Area of the heart in each slice, in any unit.
    """
    heart = heart_slices(areas)
    third = len(heart) // 3
    if third == 0:
        return None
    first, last = (float(np.mean(areas[part.start : part.stop])) for part in (heart[:third], heart[-third:]))
    if max(first, last) < _LEAST_RATIO * min(first, last):
        return None
    return "first" if first < last else "last"


def split_regions(areas: Sequence[float], apex_at: ApexAt | None) -> Regions:
    """Give each slice its region: a third of those that show the heart is base, a third apex, the rest is middle.

    Thirds are rounded down; one or two slices are all middle. Slices beyond the heart belong to the region
    at their end.

    Args:
        areas: Area of the heart in each slice.
        apex_at: Where the apex is; None calls every slice middle.
    """
    heart = heart_slices(areas)
    third = len(heart) // 3
    if apex_at is None or third == 0:
        return Regions(tuple("middle" for _ in areas), apex_at)
    names: list[Region] = []
    for z in range(len(areas)):
        from_base = z - heart.start if apex_at == "last" else heart.stop - 1 - z
        names.append("base" if from_base < third else "apex" if from_base >= len(heart) - third else "middle")
    return Regions(tuple(names), apex_at)


def given_regions(counts: Sequence[int], slices: int, apex_at: ApexAt) -> Regions:
    """Give slices the regions that somebody counted.

    Args:
        counts: Number of slices of base, middle and apex.
        slices: Number of slices of the stack.
        apex_at: The end at which the apex is.

    Raises:
        InputError: A number is negative, or they do not add up.
    """
    if len(counts) != len(REGIONS) or min(counts) < 0 or sum(counts) != slices:
        raise InputError(
            f"regions: found {' '.join(map(str, counts))}, expected numbers of slices of base, middle and apex "
            f"that add up to {slices}"
        )
    names = [name for name, count in zip(REGIONS, counts, strict=True) for _ in range(count)]
    return Regions(tuple(names if apex_at == "last" else names[::-1]), apex_at)
