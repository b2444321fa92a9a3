"""A segmented study together with what the expert drew: the one thing that scores and pictures are made from."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StudyResult:
    """One study, the predicted masks of one structure and the expert's masks of the same structure.

    Attributes:
        name: The study.
        image: (T, Z, Y, X) intensities.
        prediction: (T, Z, Y, X) boolean masks.
        reference: (T, Z, Y, X) boolean masks of the expert; meaningful where ``labelled`` is true.
        labelled: (T, Z) boolean; which slices the expert drew in which frame.
        ed: 0-based frame of end diastole.
        es: 0-based frame of end systole.
        spacing_mm: Spacing of (Z, Y, X); the first entry is the distance between slice centres.
        frame_interval_s: Time from one frame to the next; None when unknown.
        cyclic: Whether the first frame follows the last one.
    """

    name: str
    image: np.ndarray
    prediction: np.ndarray
    reference: np.ndarray
    labelled: np.ndarray
    ed: int
    es: int
    spacing_mm: tuple[float, float, float]
    frame_interval_s: float | None = None
    cyclic: bool = True

    def __post_init__(self) -> None:
        """Check that all arrays lie on one grid.

        Raises:
            ValueError: If a shape does not fit, a mask is not boolean, or ED or ES is not a frame of the study.
        """
        if self.image.ndim != 4:
            raise ValueError(f"{self.name}: image must have the axes (T, Z, Y, X), got shape {self.image.shape}")
        for field, shape in (
            ("prediction", self.image.shape),
            ("reference", self.image.shape),
            ("labelled", self.image.shape[:2]),
        ):
            array = getattr(self, field)
            if array.shape != shape or array.dtype != np.bool_:
                raise ValueError(
                    f"{self.name}: {field} must be boolean of shape {shape}, got {array.dtype} of shape {array.shape}"
                )
        for field in ("ed", "es"):
            if not 0 <= getattr(self, field) < self.n_frames:
                raise ValueError(
                    f"{self.name}: {field} must be a frame in 0..{self.n_frames - 1}, got {getattr(self, field)}"
                )

    @property
    def n_frames(self) -> int:
        """Number of frames, T."""
        return int(self.image.shape[0])

    @property
    def compared_slices(self) -> np.ndarray:
        """(Z,) boolean; the slices the expert drew at ED and at ES, over which volumes can be compared."""
        return self.labelled[self.ed] & self.labelled[self.es]
