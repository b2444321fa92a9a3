"""Small patients on disk exactly as CAMUS and TED lay them out, shared by tests. Not a test."""

from pathlib import Path

import nibabel
import numpy as np

PIXEL_MM = 0.308
N_FRAMES = 5


def frames_of(name: str, n_frames: int = N_FRAMES) -> tuple[np.ndarray, np.ndarray]:
    """Return grey values and masks (T, Y, X) in the order of time; the LV shrinks from frame to frame."""
    image = np.random.default_rng(len(name)).integers(0, 256, (n_frames, 14, 6)).astype(np.uint8)
    labels = np.zeros_like(image)
    labels[:, 11:13, 1:5] = 3
    labels[:, 1:11, 1:5] = 2
    for t in range(n_frames):
        labels[t, 2 : 10 - t, 2:4] = 1
    return image, labels


def save_camus(
    root: Path, name: str, ending: str = ".nii.gz", backwards: bool = False, dtype: type = np.float32
) -> Path:
    """Write ``root/database_nifti/NAME`` with both views; frames of Info.cfg count from 1."""
    folder = root / "database_nifti" / name
    folder.mkdir(parents=True)
    for view in ("2CH", "4CH"):
        image, labels = frames_of(name)
        ed, es = 1, N_FRAMES
        if backwards:
            image, labels, ed, es = image[::-1], labels[::-1], es, ed
        stem = f"{name}_{view}"
        for suffix, pixels in (("", image), ("_gt", labels)):
            _save_nifti(folder / f"{stem}_half_sequence{suffix}{ending}", pixels.astype(dtype))
            for phase, frame in (("ED", ed), ("ES", es)):
                _save_nifti(folder / f"{stem}_{phase}{suffix}{ending}", pixels[frame - 1].astype(dtype))
        (folder / f"Info_{view}.cfg").write_text(
            f"ED: {ed}\nES: {es}\nNbFrame: {N_FRAMES}\nSex: F\nAge: 60\nImageQuality: Good\nEF: 55\nFrameRate: 50.0\n"
        )
    return folder


def save_split(root: Path, training: list[str], validation: list[str], testing: list[str]) -> None:
    """Write the lists of ``database_split``."""
    (root / "database_split").mkdir()
    for subset, names in (("training", training), ("validation", validation), ("testing", testing)):
        (root / "database_split" / f"subgroup_{subset}.txt").write_text("\n".join(names) + "\n")


def save_camus_mhd(folder: Path, backwards: bool = False, masked: bool = True) -> Path:
    """Write a patient of the MetaImage release, called like ``folder``, with both views."""
    folder.mkdir(parents=True)
    for view in ("2CH", "4CH"):
        image, labels = frames_of(folder.name)
        ed, es = 1, 4
        if backwards:
            image, labels, ed, es = image[::-1], labels[::-1], N_FRAMES, 2
        stem = f"{folder.name}_{view}"
        save_mhd(folder / f"{stem}_sequence.mhd", image)
        for phase, frame in (("ED", ed), ("ES", es)):
            save_mhd(folder / f"{stem}_{phase}.mhd", image[frame - 1 : frame])
            if masked:
                save_mhd(folder / f"{stem}_{phase}_gt.mhd", labels[frame - 1 : frame])
        save_info(folder / f"Info_{view}.cfg", ed, es)
    return folder


def save_ted(root: Path, name: str) -> Path:
    """Write ``root/database/NAME``: one beat, ED at frame 1, ES at frame 3."""
    folder = root / "database" / name
    folder.mkdir(parents=True)
    image, labels = frames_of(name)
    labels[labels == 3] = 0
    save_mhd(folder / f"{name}_4CH_sequence.mhd", image)
    save_mhd(folder / f"{name}_4CH_sequence_gt.mhd", labels)
    save_info(folder / "Info_4CH.cfg", 1, 3)
    return folder


def save_info(path: Path, ed: int, es: int) -> None:
    """Write the facts of the MetaImage releases, which know no frame rate."""
    facts = "Sex: M\nAge: 40\nImageQuality: Good\nLVedv: 100.0\nLVesv: 45.0\nLVef: 55.0\n"
    path.write_text(f"ED: {ed}\nES: {es}\nNbFrame: {N_FRAMES}\n{facts}")


def save_mhd(path: Path, pixels: np.ndarray) -> None:
    """Write (T, Y, X), uint8, as header and pixels, with pixels of 0.308 x 0.154 mm and the meaningless 1.54 for t."""
    path.with_suffix(".raw").write_bytes(pixels.astype(np.uint8).tobytes())
    sizes = " ".join(map(str, reversed(pixels.shape)))
    path.write_text(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        f"Offset = 0 0 0\nElementSpacing = {PIXEL_MM} {PIXEL_MM / 2} 1.54\nDimSize = {sizes}\n"
        f"ElementType = MET_UCHAR\nElementDataFile = {path.stem}.raw\n"
    )


def replace_text(path: Path, text: str, other: str) -> None:
    """Replace a part of a text file, which must be there."""
    content = path.read_text()
    assert text in content
    path.write_text(content.replace(text, other))


def _save_nifti(path: Path, pixels: np.ndarray) -> None:
    image = nibabel.Nifti1Image(pixels.T, np.diag([PIXEL_MM, PIXEL_MM, 1, 1]))
    image.header.set_zooms((PIXEL_MM, PIXEL_MM, 1.0)[: pixels.ndim])
    nibabel.save(image, path)
