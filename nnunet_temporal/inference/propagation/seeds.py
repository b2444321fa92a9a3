"""Masks that a user gives for some frames of a study."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.image_io import ImageHeader, open_nifti, read_header, read_labels
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.propagation.route import Place


def read_seeds(
    file: Path, image: ImageHeader, values: Collection[int], ignore: int | None, frame: int | None
) -> dict[Place, np.ndarray]:
    """Read the masks of some frames of a study.

    A file of as many axes as the study holds a mask for each frame. Frames without foreground are not given, unless the
    file marks frames that nobody labelled by the ignore label: then all others are. A file without the time axis holds
    the masks of one moment.

    Args:
        file: NIfTI file (x, y, z, t), (x, y, z), (x, y, t) or (x, y, 1) of label values.
        image: Header of the study.
        values: Label values that the model knows, background among them.
        ignore: Label of pixels that nobody labelled, None if there is none.
        frame: The moment of a file without the time axis.

    Returns:
        Label values (Y, X) by place; slice 0 where the study has no slices.

    Raises:
        InputError: The file is unreadable, lies on another grid, holds unknown labels, or none at all; a frame is
            labelled in part, or the moment is unknown or does not exist.
    """
    first, masks = _read_like(file, image, frame)
    known = set(values) | ({ignore} if ignore is not None else set())
    if unknown := sorted(set(np.unique(masks).tolist()) - known):
        raise InputError(f"{file}: found label values {unknown}, expected only {sorted(known)}, those of the model")
    unlabelled = np.zeros(masks.shape, bool) if ignore is None else masks == ignore
    some, all_of_it = unlabelled.any((2, 3)), unlabelled.all((2, 3))
    if (partly := np.argwhere(some & ~all_of_it)).size:
        t, z = partly[0].tolist()
        raise InputError(
            f"{file}: frame {first + t} of slice {z} is labelled in part (ignore label {ignore}), expected whole "
            "frames; finish it, or fill it with the ignore label"
        )
    given = ~all_of_it if some.any() else masks.any((2, 3))
    seeds = {Place(int(z), first + int(t)): masks[t, z] for t, z in np.argwhere(given)}
    if not any(mask.any() for mask in seeds.values()):
        raise InputError(f"{file}: found no mask, expected at least one frame with foreground")
    return seeds


def check_seeds(seeds: Mapping[Place, np.ndarray], shape: tuple[int, int, int, int], values: Collection[int]) -> None:
    """Refuse masks (Y, X) that do not fit a study (T, Z, Y, X), or hold other label values than a model knows.

    Raises:
        InputError: There is such a mask, or none at all.
    """
    frames, slices, *size = shape
    if not seeds:
        raise InputError("seeds: found no mask, expected at least one; None begins without any")
    for place, mask in seeds.items():
        if not (0 <= place.slice < slices and 0 <= place.frame < frames) or list(mask.shape) != size:
            raise InputError(
                f"seeds: found a mask of {mask.shape} at {place}, expected masks of {tuple(size)} in slices "
                f"0..{slices - 1} and frames 0..{frames - 1}"
            )
        if unknown := sorted(set(np.unique(mask).tolist()) - set(values)):
            raise InputError(f"seeds: found label values {unknown} at {place}, expected only {sorted(values)}")


def find_seed_file(seeds: Path, name: str) -> Path:
    """Return the file of seeds for a study: the file itself, or the one named like the study in a folder.

    Raises:
        InputError: There is none.
    """
    if seeds.is_file():
        return seeds
    for ending in (".nii.gz", ".nii"):
        if (file := seeds / f"{name}{ending}").is_file():
            return file
    raise InputError(f"{seeds}: found no seed {name}.nii.gz, expected one file for each study, named like it")


def _read_like(file: Path, image: ImageHeader, frame: int | None) -> tuple[int, np.ndarray]:
    """Read the first moment of a file, and its label values (T, Z, Y, X): all moments of the study, or one."""
    n_frames, *n_slices, height, width = image.shape
    stack = (n_slices or [1])[0], height, width
    header = read_header(file)
    _check_grid(file, header, image)
    if header.shape == image.shape:
        return 0, read_labels(file).reshape(n_frames, *stack)
    if header.shape not in ((*n_slices, height, width), (1, *image.shape[1:])):
        raise InputError(
            f"{file}: found shape {header.shape[::-1]}, expected {image.shape[::-1]} as in {image.path}, or "
            f"{stack[::-1]} for one moment"
        )
    if frame is None or not 0 <= frame < n_frames:
        raise InputError(
            f"{file}: holds one moment, but found {'none' if frame is None else frame} for it, expected one of "
            f"0..{n_frames - 1}; name it with --t0"
        )
    return frame, read_labels(file).reshape(1, *stack)


def _check_grid(file: Path, header: ImageHeader, image: ImageHeader) -> None:
    """Refuse a file whose pixels are of another size, or lie elsewhere, than those of the study."""
    if not np.allclose(header.spacing.pixel_mm, image.spacing.pixel_mm, rtol=1e-3):
        raise InputError(
            f"{file}: found pixel spacing {header.spacing.pixel_mm} mm (y, x), expected {image.spacing.pixel_mm} as in "
            f"{image.path}"
        )
    here, there = open_nifti(file).affine, open_nifti(image.path).affine
    axes = 3 if len(image.shape) == 4 else 2  # without slices, the third one is time
    turned = not np.allclose(_directions(here, axes), _directions(there, axes), atol=1e-2)
    if turned or not np.allclose(here[:3, 3], there[:3, 3], atol=0.5):
        raise InputError(f"{file}: lies elsewhere, or is turned otherwise, than {image.path}; draw it on that image")


def _directions(affine: np.ndarray, axes: int) -> np.ndarray:
    """Return the directions of the first axes."""
    return affine[:3, :axes] / np.linalg.norm(affine[:3, :axes], axis=0)
