"""Small patients on disk exactly as M&Ms and M&Ms-2 lay them out, shared by tests. Not a test."""

from pathlib import Path

import nibabel
import numpy as np

TABLE = "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"
COLUMNS = ",External code,VendorName,Vendor,Centre,ED,ES,Age,Pathology,Sex,Height,Weight"
ZOOMS = (1.5, 1.25, 9.6, 1.0)
# Real and oblique, as in M&Ms, and sheared, as in a few of its files: the columns are not orthogonal.
SHEARED = np.array([[-1.5, 0.4, 0, 30], [-0.1, -1.2, 0, 20], [0, 0, 9.6, -50], [0, 0, 0, 1.0]])


def save_nifti(path: Path, on_disk: np.ndarray, affine: np.ndarray = SHEARED) -> None:
    """Write an array (x, y, z[, t]) with an sform of its own and spacing in the zooms."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(on_disk, affine)
    image.set_sform(affine, code=1)
    image.set_qform(None, code=0)
    image.header["pixdim"][1 : 1 + on_disk.ndim] = ZOOMS[: on_disk.ndim]
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)


def movie_of(n_frames: int = 6, slices: int = 2) -> np.ndarray:
    """Return grey values (x, y, z, t), 7 x 5 pixels, no two frames alike."""
    return np.random.default_rng(0).integers(0, 1000, (7, 5, slices, n_frames)).astype(np.int16)


def mask_of(is_ed: bool, slices: int = 2) -> np.ndarray:
    """Return a mask (x, y, z): LV 1, MYO 2 and RV 3 side by side along x; the LV is longer at ED, the RV at ES."""
    mask = np.zeros((7, 5, slices), np.uint8)
    mask[1, : 4 if is_ed else 2], mask[2, :2], mask[3, : 1 if is_ed else 4] = 1, 2, 3
    return mask


def masks_of(ed: int | None, es: int | None, n_frames: int = 6) -> np.ndarray:
    """Return masks (x, y, z, t) that are zero in all frames but ED and ES."""
    masks = np.zeros((7, 5, 2, n_frames), np.uint8)
    for frame, is_ed in ((ed, True), (es, False)):
        if frame is not None:
            masks[..., frame] = mask_of(is_ed)
    return masks


def save_mnms_patient(part: Path, code: str, masks: np.ndarray | None) -> Path:
    """Write movie and masks of a patient of M&Ms into a part such as Training/Labeled."""
    folder = part / code
    save_nifti(folder / f"{code}_sa.nii.gz", movie_of())
    if masks is not None:
        save_nifti(folder / f"{code}_sa_gt.nii.gz", masks)
    return folder


def save_table(root: Path, phases: dict[str, tuple[object, object]], name: str = TABLE) -> Path:
    """Write the table of M&Ms: {patient: (ED, ES)}, with empty cells as they are in it."""
    root.mkdir(parents=True, exist_ok=True)
    rows = [f"{i},{code},Siemens,A,1,{ed},{es},50,HCM,F,," for i, (code, (ed, es)) in enumerate(phases.items())]
    (root / name).write_text("\n".join([COLUMNS, *rows]) + "\n")
    return root / name


def save_open_dataset(root: Path) -> Path:
    """Write ``root/OpenDataset`` with one patient or two in every part, and ED after ES in one."""
    folder = root / "OpenDataset"
    save_mnms_patient(folder / "Training" / "Labeled", "A0S9V9", masks_of(0, 3))
    save_mnms_patient(folder / "Training" / "Labeled", "B0H7V0", masks_of(5, 2))
    save_mnms_patient(folder / "Training" / "Unlabeled", "D0R0R9", masks_of(None, None))
    save_mnms_patient(folder / "Validation", "C8J7L5", masks_of(0, 2))
    save_mnms_patient(folder / "Testing", "A1K2P5", masks_of(1, 4))
    phases = {"A0S9V9": (0, 3), "B0H7V0": (5, 2), "D0R0R9": (0, 0), "C8J7L5": (0, 2), "A1K2P5": (1, 4)}
    save_table(folder, phases)
    return folder


def save_mnms2_view(folder: Path, patient: str, view: str, ed: int = 1, es: int = 4, masked: bool = True) -> None:
    """Write all files of one view of a patient of M&Ms-2 into the patient's folder."""
    movie = movie_of(slices=2 if view == "SA" else 1)
    save_nifti(folder / f"{patient}_{view}_CINE.nii.gz", movie)
    for phase, frame in (("ED", ed), ("ES", es)):
        save_nifti(folder / f"{patient}_{view}_{phase}.nii.gz", movie[..., frame])
        if masked:
            save_nifti(folder / f"{patient}_{view}_{phase}_gt.nii.gz", mask_of(phase == "ED", movie.shape[2]))


def save_mnm2(root: Path, patients: tuple[str, ...] = ("001", "161", "201")) -> Path:
    """Write ``root/MnM2`` with both views of every patient; in LA, ED and ES are other frames than in SA."""
    for patient in patients:
        save_mnms2_view(root / "MnM2" / "dataset" / patient, patient, "SA")
        save_mnms2_view(root / "MnM2" / "dataset" / patient, patient, "LA", ed=0, es=3)
    rows = [f"{int(patient)},NOR,SIEMENS,Symphony,1.5" for patient in patients]
    lines = ["SUBJECT_CODE,DISEASE,VENDOR,SCANNER,FIELD", *rows, ",,,,"]
    (root / "MnM2" / "dataset_information.csv").write_text("\n".join(lines) + "\n")
    return root / "MnM2"
