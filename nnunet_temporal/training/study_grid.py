"""Where the preprocessed sequences of a study lie relative to each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def origin_on_study(crop: Sequence[Sequence[int]], size: tuple[int, int]) -> np.ndarray:
    """Return where a preprocessed sequence begins on the grid that all sequences of its study share.

    nnU-Net crops each sequence to its own nonzero region. The slices of a stack come from one image, so that what the
    crop has removed at the upper left tells where a slice lies.

    Args:
        crop: First pixel of the crop and one past its last, along Y and along X.
        size: (Y, X) of the preprocessed frames.

    Returns:
        (Y, X) of the first pixel on the study's grid, in preprocessed pixels; not whole where there was resampling.
    """
    box = np.array(crop)
    return box[:, 0] * np.array(size) / (box[:, 1] - box[:, 0])


def origin_of_case(properties: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Return the origin of a preprocessed case, of which nnU-Net has kept these properties; see ``origin_on_study``."""
    return origin_on_study(properties["bbox_used_for_cropping"][1:], size)
