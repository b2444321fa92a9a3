"""Small patients on disk exactly as ACDC lays them out, shared by tests. Not a test."""

from pathlib import Path

import nibabel
import numpy as np

from nnunet_temporal.datasets.phantom.cine import draw_cine_study
from nnunet_temporal.datasets.phantom.heartbeat import Heartbeat

ZOOMS = (1.5, 1.25, 10.0, 1.0)


def save_acdc_nifti(path: Path, on_disk: np.ndarray) -> None:
    """Write an array (x, y, z[, t]) with ACDC's header: a unit sform, no qform, no units, spacing only in the zooms."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unit = np.diag([-1.0, -1.0, 1.0, 1.0])
    image = nibabel.Nifti1Image(on_disk, unit)
    image.set_sform(unit, code=2)
    image.set_qform(None, code=0)
    image.header["pixdim"][1 : 1 + on_disk.ndim] = ZOOMS[: on_disk.ndim]
    nibabel.save(image, path)


def movie_of(n_frames: int = 5, size: tuple[int, int] = (6, 5)) -> np.ndarray:
    """Return grey values (x, y, z, t), 2 slices, no two frames alike."""
    return np.random.default_rng(0).integers(0, 1000, (*size, 2, n_frames)).astype(np.int16)


def mask_of(frame: int, size: tuple[int, int] = (6, 5)) -> np.ndarray:
    """Return a mask (x, y, z): RV 1, MYO 2 and LV 3 side by side along x; the RV is longer at frame 1, from 1."""
    mask = np.zeros((*size, 2), np.uint8)
    mask[1, : 3 if frame == 1 else 2], mask[2, :2], mask[3, :2] = 1, 2, 3
    return mask


def save_patient(
    folder: Path, ed: int = 1, es: int = 3, size: tuple[int, int] = (6, 5), masked: bool = True, n_frames: int = 5
) -> Path:
    """Write all files of one patient; ED and ES count from 1, and ``folder`` is called like the patient."""
    masks = {frame: mask_of(frame, size) if masked else None for frame in (ed, es)}
    return save_phases(folder, movie_of(n_frames, size), masks)


def save_phases(folder: Path, movie: np.ndarray, masks: dict[int, np.ndarray | None]) -> Path:
    """Write all files of a patient: a movie (x, y, z, t), and by frame from 1 the masks (x, y, z) of ED, then ES."""
    save_acdc_nifti(folder / f"{folder.name}_4d.nii.gz", movie)
    for frame, mask in masks.items():
        save_acdc_nifti(folder / f"{folder.name}_frame{frame:02d}.nii.gz", movie[..., frame - 1])
        if mask is not None:
            save_acdc_nifti(folder / f"{folder.name}_frame{frame:02d}_gt.nii.gz", mask)
    ed, es = masks
    facts = f"ED: {ed}\nES: {es}\nGroup: NOR\nHeight: 170.0\nNbFrame: {movie.shape[-1]}\nWeight: 70.0\n"
    (folder / "Info.cfg").write_text(facts)
    (folder / "MANDATORY_CITATION.md").write_text("cite\n")
    return folder


def save_database(root: Path, masked_testing: bool = True) -> Path:
    """Write ``root/database`` with two patients for training, the second with ED at frame 4, and one for testing."""
    save_patient(root / "database" / "training" / "patient001")
    save_patient(root / "database" / "training" / "patient002", ed=4, es=2, size=(5, 7))
    save_patient(root / "database" / "testing" / "patient101", masked=masked_testing)
    return root / "database"


def draw_patient(folder: Path, seed: int, size: int, masked: bool = True) -> None:
    """Write two slices of a beating heart as a patient of ACDC; patients differ in frames and size."""
    rng = np.random.default_rng(seed)
    study = draw_cine_study(folder.name, Heartbeat.draw(rng, (8, 12), (1, 1)), size + 8 * (seed % 2), rng)
    movie, truth = (
        # (T, Y, X) of each slice to (x, y, z, t), not square.
        np.stack([getattr(sequence, name) for sequence in study.sequences[3:5]]).transpose(3, 2, 0, 1)[4:]
        for name in ("image", "truth")
    )
    phases = study.heartbeat.ed_es()
    save_phases(folder, movie.astype(np.int16), {t + 1: truth[..., t] if masked else None for t in phases})
