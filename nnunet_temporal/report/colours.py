"""The colours of structures and of the expert, the same in every picture."""

from nnunet_temporal.evaluation.label_scheme import LabelScheme

Colour = tuple[int, int, int]
"""Red, green and blue in 0..255."""

# Of the Okabe-Ito palette, or near it: apart for every kind of colour vision, and absent from grey images.
LABEL_COLOURS: tuple[Colour, ...] = (
    (86, 196, 245),
    (0, 200, 140),
    (224, 130, 190),
    (240, 228, 66),
    (235, 95, 60),
)
EXPERT_COLOUR: Colour = (255, 176, 32)

_PREFERRED = ("LV", "MYO", "RV", "LA")
"""The left ventricle is blue in every dataset, whatever its value; then the wall, the right ventricle, the atrium."""


def colour_places(labels: LabelScheme) -> dict[str, int]:
    """Choose the colour of each label, a place in ``LABEL_COLOURS``; with more labels than colours they come again."""
    places = {labels.roles[role]: place for place, role in enumerate(_PREFERRED) if role in labels.roles}
    free = [place for place in range(len(LABEL_COLOURS)) if place not in places.values()]
    others = [name for name in labels.values if name not in places]
    # Where every colour is taken, they are dealt out from the first again.
    rest = free or list(range(len(LABEL_COLOURS)))
    places |= {name: rest[index % len(rest)] for index, name in enumerate(others)}
    return {name: places[name] for name in labels.values}


def painting_order(labels: LabelScheme) -> list[str]:
    """Return the labels from the lowest to the topmost: the ventricle's outline lies above that of its wall."""
    places = colour_places(labels)
    return sorted(places, key=lambda name: -places[name])
