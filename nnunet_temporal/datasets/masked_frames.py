"""Label files of single frames, such as ED and ES, as the labels of a whole movie."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.image_io import read_labels
from nnunet_temporal.datasets.study_source import IGNORE
from nnunet_temporal.errors import InputError


def load_masked_frames(masks: Mapping[int, Path], shape: tuple[int, ...], labels: Mapping[str, int]) -> np.ndarray:
    """Read the masks of some frames of a movie.

    Args:
        masks: {frame: mask file}.
        shape: (T, Z, Y, X) or (T, Y, X) of the movie.
        labels: Names and values, the ignore label the highest.

    Returns:
        Labels of that shape, uint8: the ignore label in all other frames.

    Raises:
        InputError: A file is unreadable, has a value beyond the classes, or no label at all.
    """
    movie = np.full(shape, labels[IGNORE], np.uint8)
    for t, path in masks.items():
        mask = read_labels(path)
        # A class as high as the ignore label would pass for "not labelled".
        unknown = [value for value in np.unique(mask).tolist() if value >= labels[IGNORE]]
        if unknown or not mask.any():
            found = f"label values {unknown}" if unknown else "no label at all"
            classes = ", ".join(f"{value} {name}" for name, value in labels.items() if 0 < value < labels[IGNORE])
            raise InputError(f"{path}: found {found}, expected {classes} on background 0; restore it from the download")
        movie[t] = mask.reshape(shape[1:])
    return movie
