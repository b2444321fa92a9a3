"""Common label values for datasets that name the same classes but number them differently.

ACDC writes RV 1, MYO 2, LV 3, M&Ms writes LV 1, MYO 2, RV 3; pooled as they are, left and right would be mixed.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import numpy as np

from nnunet_temporal.datasets import acdc, mnms, sunnybrook
from nnunet_temporal.datasets.study_source import StudySource
from nnunet_temporal.errors import InputError

PRESETS = {"acdc": acdc.LABELS, "mnms": mnms.LABELS, "sunnybrook": sunnybrook.LABELS}


def with_preset(
    sources: Iterable[StudySource], labels: dict[str, int], preset: str
) -> tuple[list[StudySource], dict[str, int]]:
    """Give studies the label values of a preset, by the names of the classes; masks are changed when they are loaded.

    Classes that the preset lacks become background. The other way round is refused: where a dataset has not drawn a
    class, its background may hide it.

    Args:
        sources: The studies of one dataset.
        labels: Label names and values of that dataset, the ignore label among them.
        preset: One of ``PRESETS``.

    Returns:
        The studies, and the label names and values of the preset.

    Raises:
        InputError: There is no such preset, or the dataset lacks one of its classes. A study raises it when loaded if
            it holds a value that ``labels`` does not name.
    """
    if preset not in PRESETS:
        raise InputError(f"--labels: found {preset!r}, expected one of {', '.join(PRESETS)}")
    target = PRESETS[preset]
    if missing := [name for name in target if name not in labels]:
        raise InputError(
            f"--labels {preset}: needs {', '.join(missing)}, which this dataset has not drawn (it has "
            f"{', '.join(labels)}); take a preset whose classes all datasets have"
        )
    new_value = {value: target.get(name, target["background"]) for name, value in labels.items()}
    return [_relabelled(source, new_value) for source in sources], dict(target)


def _relabelled(source: StudySource, new_value: dict[int, int]) -> StudySource:
    if source.load_labels is None:
        return source
    return replace(source, load_labels=partial(_load, source.load_labels, new_value, source.source))


def _load(load_labels: Callable[[], np.ndarray], new_value: dict[int, int], source: str) -> np.ndarray:
    masks = load_labels()
    values = np.unique(masks).tolist()
    if unknown := [value for value in values if value not in new_value]:
        raise InputError(f"{source}: found label values {unknown}, expected only {sorted(new_value)}")
    # Filled into a new array, so that a value that was already exchanged is not exchanged again.
    changed = np.zeros(masks.shape, np.uint8)
    for value in values:
        changed[masks == value] = new_value[value]
    return changed
