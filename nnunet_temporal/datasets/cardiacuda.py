"""CardiacUDA: echo videos of two hospitals in four views, with the chambers labelled on some frames or on all.

Folders ``Site_*`` (some frames labelled) and ``label_all_frame`` (all of them) in ``cardiacUDC_dataset`` hold
``<patient>-<view>_image.nii.gz`` and ``..._label.nii.gz``, (x, y, t). A label value means another structure in each
view, a frame without labels is zero throughout, and some masks are the outline only. Data and citation: Yang et al.,
ICCV, 2023, https://github.com/xmed-lab/GraphEcho.
"""

import re
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_erosion, binary_fill_holes

from nnunet_temporal.datasets.image_io import ImageHeader, check_same_grid, read_image, read_labels
from nnunet_temporal.datasets.image_io import read_header as read_nifti_header
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.study_source import IGNORE, StudySource
from nnunet_temporal.errors import InputError

NAME = "CardiacUDA"
CHANNEL = "US"
# Long axis of the LV, of the pulmonary artery, short axis of the LV, four chambers: in file names 1, 2, 3, 4.
VIEW_LABELS = {
    "LVLA": {"background": 0, "LV": 1, "RV": 2, IGNORE: 3},
    "PALA": {"background": 0, "PA": 1, IGNORE: 2},
    "LVSA": {"background": 0, "LV": 1, "RV": 2, IGNORE: 3},
    "A4C": {"background": 0, "LV": 1, "LA": 2, "RA": 3, "RV": 4, IGNORE: 5},
}
DEFAULT_VIEW = "A4C"
LABELS = VIEW_LABELS[DEFAULT_VIEW]

_ROOT, _ALL_LABELLED = "cardiacUDC_dataset", "label_all_frame"
_NAME = re.compile(r"(?P<patient>.+)-(?P<view>[1-4])_image\.nii(\.gz)?")
# A mask of fewer pixels is a slip; the loader published with the data asks for as many.
_LEAST_LABELLED = 100
# What this many steps of erosion remove is a line, up to twice as thick.
_LINE_STEPS = 2


def find_studies(folder: Path, view: str = DEFAULT_VIEW) -> list[StudySource]:
    """Find the videos of one view; only headers are read, and pixels where a video seems to be there twice.

    A video without a label file is unlabelled, and so is each frame with 100 labelled pixels or less. A video of some
    labelled frames that is in ``label_all_frame`` as well is taken from there only.

    Args:
        folder: ``cardiacUDC_dataset`` or the folder it is in.
        view: One of ``VIEW_LABELS``, whose labels the dataset then has.

    Returns:
        One study per video, named by folder and patient; patients count anew in each folder.

    Raises:
        InputError: There is no video of the view, or files are unreadable or do not fit; all bad ones are listed.
    """
    images = _images_of(folder, view)
    if not images:
        raise InputError(
            f"{folder}: found no Site_*/<patient>-{_number_of(view)}_image.nii.gz, expected the folder '{_ROOT}'"
        )
    dense = {path.name: path for path in images if path.parent.name == _ALL_LABELLED}
    sources = apply_to_all(images, partial(_source_of, view=view, dense=dense))
    return [source for source in sources if source is not None]


def held_out_studies(folder: Path, view: str = DEFAULT_VIEW) -> list[str]:
    """Return the studies for testing: those with labels on all frames."""
    return [_study_of(path) for path in _images_of(folder, view) if path.parent.name == _ALL_LABELLED]


def _number_of(view: str) -> str:
    return str(list(VIEW_LABELS).index(view) + 1)


def _images_of(folder: Path, view: str) -> list[Path]:
    root = folder / _ROOT if (folder / _ROOT).is_dir() else folder
    paths = [*root.glob("Site_*/*_image.nii*"), *root.glob(f"{_ALL_LABELLED}/*_image.nii*")]
    named = ((path, _NAME.fullmatch(path.name)) for path in sorted(paths))
    return [path for path, match in named if match and match["view"] == _number_of(view) and path.name[0] != "."]


def _study_of(image: Path) -> str:
    match = _NAME.fullmatch(image.name)
    return f"{image.parent.name}_{match['patient'] if match else image.name}"


def _source_of(image: Path, view: str, dense: dict[str, Path]) -> StudySource | None:
    """Describe a video, or return None for one that is among those with all frames labelled, too."""
    header = _read_header(image)
    twin = dense.get(image.name, image)
    if twin != image and _read_header(twin).shape == header.shape and np.array_equal(_load(twin), _load(image)):
        return None
    labels = image.with_name(image.name.replace("_image.nii", "_label.nii"))
    if labels.is_file():
        check_same_grid(_read_header(labels), header)
    return StudySource(
        study=_study_of(image),
        load_image=partial(_load, image),
        load_labels=partial(_load_labels, labels, VIEW_LABELS[view]) if labels.is_file() else None,
        spacing=header.spacing,
        view=view,
        source=str(image.resolve()),
    )


def _read_header(path: Path) -> ImageHeader:
    """Read shape (T, Y, X) and spacing; a file with two axes is a movie of one frame."""
    header = read_nifti_header(path, still=True)
    if len(header.shape) != 3:
        raise InputError(f"{path}: found {len(header.shape)} axes, expected 3 (x, y, t) or 2 (x, y)")
    # Pixels of 1 mm would make the picture half a metre wide.
    known = header.spacing.pixel_known and header.spacing.pixel_mm != (1.0, 1.0)
    return replace(header, spacing=replace(header.spacing, pixel_known=known, frame_s=None))


def _load(path: Path) -> np.ndarray:
    return read_image(path, still=True)


def _load_labels(path: Path, labels: dict[str, int]) -> np.ndarray:
    """Return labels (T, Y, X), uint8: outlines filled; frames without labels and stray values carry the ignore label.

    Raises:
        InputError: The file is unreadable, or an outline is not closed.
    """
    found = read_labels(path, still=True)
    classes = [value for name, value in labels.items() if name != IGNORE]
    stray = ~np.isin(found, classes)
    if stray.any():
        values = np.unique(found[stray])[:5].tolist()
        warnings.warn(f"{path}: found label values {values}, which are left out; expected {labels}", stacklevel=2)
    masks = np.where(stray, 0, found).astype(np.uint8)
    for t, mask in enumerate(masks):
        if np.count_nonzero(mask) <= _LEAST_LABELLED:
            mask[:] = labels[IGNORE]
            continue
        for value in classes[1:]:
            _fill(mask, value, f"{path}: frame {t}, counted from 0")
        mask[stray[t]] = labels[IGNORE]
    return masks


def _fill(mask: np.ndarray, value: int, where: str) -> None:
    """Fill what one label encloses, in place; other labels stay."""
    region = binary_fill_holes(mask == value)
    if np.count_nonzero(region) > _LEAST_LABELLED and not binary_erosion(region, iterations=_LINE_STEPS).any():
        raise InputError(
            f"{where}: found only a line of label {value} that encloses nothing, expected an area or a closed outline; "
            "close it, or remove the label file to keep the video as an unlabelled one"
        )
    mask[region & (mask == 0)] = value
