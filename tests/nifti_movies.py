"""Small movies on disk, shared by tests. Not a test."""

from pathlib import Path

import nibabel
import numpy as np


def save_nifti(path: Path, on_disk: np.ndarray, zooms: tuple[float, ...] = (1.5, 1.25, 10.0, 1.0)) -> Path:
    """Write an array (x, y[, z], t) with a unit affine, as ACDC does, and make the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(on_disk, np.eye(4))
    image.header.set_zooms(zooms[: on_disk.ndim])
    nibabel.save(image, path)
    return path


def save_movie(folder: Path, name: str, slices: int = 2, labelled: bool = True, ignore: int = 2) -> Path:
    """Write images/NAME.nii.gz and labels/NAME.nii.gz: 6 x 5 pixels, 4 frames, 0 slices for (x, y, t).

    Frames 0 and 2 of every slice are labelled with 1, the others carry the ignore label.
    """
    shape = (6, 5, slices, 4) if slices else (6, 5, 4)
    pixels = np.random.default_rng(0).integers(0, 100, shape).astype(np.int16)
    image = save_nifti(folder / "images" / f"{name}.nii.gz", pixels)
    if labelled:
        labels = np.full(shape, ignore, np.uint8)
        labels[..., [0, 2]] = 0
        labels[2:4, 2:4, ..., [0, 2]] = 1
        save_nifti(folder / "labels" / f"{name}.nii.gz", labels)
    return image
