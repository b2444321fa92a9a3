"""A first look at a study, frame by frame and without memory: where the heart is, and with which slice to begin."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.inference.propagation.regions import heart_slices
from nnunet_temporal.metrics.validity import count_parts, ring_opening_share

Look = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Segments frames of a slice: label values (N, Y, X), and how sure each pixel is (N, Y, X) in 0..1."""

_CLOSED = 0.05
"""Share of the cavity's outline up to which a ring of myocardium counts as closed."""


@dataclass(frozen=True)
class Profile:
    """What a first look at one moment found.

    Attributes:
        areas: Pixels of the heart in each slice.
        best_slice: The slice to begin with; None where no heart was found.
    """

    areas: tuple[int, ...]
    best_slice: int | None


def largest_frame(look: Look, z: int, frames: int, labels: LabelScheme) -> int:
    """Return the moment at which a slice shows the largest left ventricle, or heart if there is no such label."""
    masks, _ = look(z, np.arange(frames))
    ventricle = labels.role_mask(masks, "LV")
    areas = (masks > 0 if ventricle is None or not ventricle.any() else ventricle).sum((1, 2))
    return int(areas.argmax())


def look_around(look: Look, slices: int, frame: int, labels: LabelScheme) -> Profile:
    """Look at all slices of a moment.

    A good slice to begin with has all structures, each in one part, and a closed ring of myocardium. Of those that
    fulfil most of this it is the one nearest to the middle of the heart; of two as near, the one whose least certain
    structure is more certain.
    """
    looks = [look(z, np.array([frame])) for z in range(slices)]
    areas = tuple(int((masks > 0).sum()) for masks, _ in looks)
    heart = heart_slices(areas)
    if not heart:
        return Profile(areas, None)
    middle = (heart.start + heart.stop - 1) / 2

    def rank(z: int) -> tuple[int, float, float]:
        masks, certainty = looks[z]
        structures = [masks == value for value in labels.values.values()]
        found = [structure for structure in structures if structure.any()]
        flaws = len(structures) - len(found) + sum(int(count_parts(structure)[0]) > 1 for structure in found)
        flaws += _is_open(masks, labels)
        return flaws, abs(z - middle), -min((float(certainty[structure].mean()) for structure in found), default=0.0)

    return Profile(areas, min(heart, key=rank))


def _is_open(masks: np.ndarray, labels: LabelScheme) -> bool:
    cavity, wall = labels.role_mask(masks, "LV"), labels.role_mask(masks, "MYO")
    return cavity is not None and wall is not None and not ring_opening_share(cavity, wall)[0] <= _CLOSED
