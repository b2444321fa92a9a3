"""What a job of prediction is: one file of masks, what it is predicted from, and how both are read and written."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_temporal.datasets.image_io import Spacing
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.pipeline import StageClock
from nnunet_temporal.inference.preparation import PreparedSequence
from nnunet_temporal.inference.sequence_predictor import Prediction


@dataclass(frozen=True)
class Reading:
    """What a job read.

    Attributes:
        images: {slice: (C, T, Y, X)}; {None: image} where there are no slices.
        pixel_mm: In-plane spacing (y, x) in mm.
        properties: What nnU-Net's reader says about the grid; empty for movies.
    """

    images: dict[int | None, np.ndarray]
    pixel_mm: tuple[float, float]
    properties: dict[str, Any]


@dataclass(frozen=True)
class Job(ABC):
    """One file of masks and what it is predicted from.

    Attributes:
        files: The input: of a sequence one file per channel, of a movie all its files.
        folder: Existing folder for the output.
        name: Name of the output, without an ending.
        ending: Ending of the file of masks.
    """

    files: tuple[Path, ...]
    folder: Path
    name: str
    ending: str

    @property
    def output(self) -> Path:
        """File for the masks."""
        return self.folder / f"{self.name}{self.ending}"

    @property
    def outputs(self) -> tuple[Path, ...]:
        """All files that are always written, the masks last."""
        return (self.output,)

    @property
    def probabilities_file(self) -> Path:
        """File for the probabilities, if they are asked for."""
        return self.folder / f"{self.name}.npz"

    def is_done(self, with_probabilities: bool) -> bool:
        """Tell whether all output is there; files appear whole, and the masks last."""
        return self.output.is_file() and (not with_probabilities or self.probabilities_file.is_file())

    def remarks(self) -> list[str]:
        """Say what a user should know of the masks, in words that other jobs use too; none by default.

        Raises:
            InputError: The input cannot be read.
        """
        return []

    @abstractmethod
    def read(self, model: TrainedModel) -> Reading:
        """Read the input; raises whatever a reader does on a broken file."""

    def predict(
        self,
        predictor: Any,  # noqa: ANN401 - a SequencePredictor; other jobs have others
        reading: Reading,
        slices: Mapping[int | None, PreparedSequence],
        *,
        with_probabilities: bool,
        clock: StageClock,
    ) -> dict[int | None, Prediction]:
        """Predict what was read and prepared, slice by slice."""
        return {
            z: predictor.segment(sequence, with_probabilities=with_probabilities, clock=clock)
            for z, sequence in slices.items()
        }

    @abstractmethod
    def write(self, model: TrainedModel, reading: Reading, predictions: dict[int | None, Prediction]) -> None:
        """Write masks, and probabilities where the predictions have some."""


def spacing_remarks(spacing: Spacing) -> list[str]:
    """Return the remark that the size of pixels is not known; none where it is."""
    if spacing.pixel_known:
        return []
    return ["predicted without knowing the size of a pixel, as if it were 1 mm; the masks tell no lengths"]
