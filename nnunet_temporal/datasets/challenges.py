"""What ACDC, M&Ms-2 and CAMUS ask of a submission: label values, file names, and the image that each mask belongs to.

File names are those that nnU-Net's first version wrote for ACDC (``Task027``), that a model for M&Ms-2 wrote by the
organisers' template, and that scripts write for the platform of CAMUS. Platforms move: compare with the page of the
challenge.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_temporal.datasets import acdc, camus, camus_mhd, mnms2
from nnunet_temporal.datasets.image_io import NIFTI_ENDINGS
from nnunet_temporal.datasets.mask_files import write_like_mhd, write_like_nifti
from nnunet_temporal.datasets.study_source import IGNORE

PHASES = ("ED", "ES")


@dataclass(frozen=True)
class Challenge:
    """How a challenge wants its masks.

    Attributes:
        labels: Label names and values, as the challenge has them.
        image: Name of the challenge's own image of a phase, without its ending, to be filled in by ``image_name``.
        endings: Endings that this image may have, the likeliest first.
        mask: Path of a mask in the submission, to be filled in by ``mask_path``.
        write: Writes a mask (Z, Y, X), uint8, on the grid of that image: (mask, image, path).
    """

    labels: dict[str, int]
    image: str
    endings: tuple[str, ...]
    mask: str
    write: Callable[[np.ndarray, Path, Path], None]

    def image_name(self, study: str, view: str | None, phase: str, frame: int) -> str:
        """Return the name, without ending, of the challenge's image of a phase, which is ``frame``, from 0."""
        return self.image.format(patient=_patient(study), view=view, phase=phase, number=frame + 1)

    def mask_path(self, study: str, view: str | None, phase: str) -> str:
        """Return the path of the mask of a phase in the submission, with slashes."""
        return self.mask.format(patient=_patient(study), view=view, phase=phase)


def _patient(study: str) -> str:
    # The converter of CAMUS tells patients for testing by this from those for training who are called the same.
    return study.removeprefix(camus_mhd.TESTING_PREFIX)


def _classes(labels: dict[str, int]) -> dict[str, int]:
    return {name: value for name, value in labels.items() if name != IGNORE}


CHALLENGES = {
    "acdc": Challenge(
        _classes(acdc.LABELS),
        image="{patient}_frame{number:02d}",
        endings=NIFTI_ENDINGS,
        mask="{patient}_{phase}.nii.gz",
        write=write_like_nifti,
    ),
    "mnms2": Challenge(
        _classes(mnms2.LABELS),
        image="{patient}_{view}_{phase}",
        endings=NIFTI_ENDINGS,
        mask="{patient}/{patient}_{view}_{phase}_pred.nii.gz",
        write=write_like_nifti,
    ),
    "camus": Challenge(
        _classes(camus.LABELS),
        image="{patient}_{view}_{phase}",
        endings=(".mhd", *NIFTI_ENDINGS),
        mask="{patient}_{view}_{phase}.mhd",
        write=write_like_mhd,
    ),
}
