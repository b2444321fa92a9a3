"""Movies of any format that holds a whole one in a file: NIfTI, NRRD and MetaImage, told apart by the file's ending."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.image_io import (
    NIFTI_ENDINGS,
    ImageHeader,
    Spacing,
    as_grey_values,
    read_header,
    read_image,
)
from nnunet_temporal.datasets.movie_file import StoredMovie, movie_header_of, read_stored_pixels
from nnunet_temporal.datasets.movie_metaimage import read_meta_image
from nnunet_temporal.datasets.movie_nrrd import read_nrrd
from nnunet_temporal.errors import InputError

_READERS: dict[str, Callable[[Path], StoredMovie]] = {
    ".nrrd": read_nrrd,
    ".mha": read_meta_image,
    ".mhd": read_meta_image,
}
MOVIE_ENDINGS = (*NIFTI_ENDINGS, *_READERS)


def movie_header(path: Path) -> ImageHeader:
    """Read shape (T, Z, Y, X) or (T, Y, X) and spacing of a movie, without its pixels.

    Raises:
        InputError: The ending is none of ``MOVIE_ENDINGS``, or the file is missing, unreadable, damaged, or no movie
            of grey values.
    """
    if path.name.lower().endswith(NIFTI_ENDINGS):
        return read_header(path)
    return movie_header_of(_stored(path))


def read_movie(path: Path) -> tuple[np.ndarray, Spacing]:
    """Read a movie.

    Returns:
        Grey values (T, Z, Y, X) or (T, Y, X), float32, and the distances between pixels, slices and frames.

    Raises:
        InputError: As :func:`movie_header`, or pixels are cut off, NaN or infinite.
    """
    if path.name.lower().endswith(NIFTI_ENDINGS):
        return read_image(path), read_header(path).spacing
    movie = _stored(path)
    return as_grey_values(read_stored_pixels(movie), path), movie_header_of(movie).spacing


def _stored(path: Path) -> StoredMovie:
    for ending, read in _READERS.items():
        if path.name.lower().endswith(ending):
            return read(path)
    raise InputError(f"{path}: found another ending, expected a movie in one of {', '.join(MOVIE_ENDINGS)}")
