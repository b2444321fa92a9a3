"""Segments whole studies (T, Z, Y, X) from one mask or none: along time in the middle, slice by slice to both ends."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nnunet_temporal.datasets.heart_cycle import estimate_cycle
from nnunet_temporal.datasets.study_source import IGNORE
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.label_values import background_probabilities, mask_type
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.pipeline import StageClock
from nnunet_temporal.inference.preparation import PreparedSequence
from nnunet_temporal.inference.propagation.mask_memory import FRAMES_PER_PASS, MaskMemory
from nnunet_temporal.inference.propagation.regions import Regions
from nnunet_temporal.inference.propagation.route import Continuity, Direction, Route, check_capacity
from nnunet_temporal.inference.propagation.seeds import check_seeds
from nnunet_temporal.inference.propagation.study_canvas import StudyCanvas
from nnunet_temporal.inference.propagation.study_pass import SliceMasks, StudyPass
from nnunet_temporal.inference.propagation.study_records import FrameRecord
from nnunet_temporal.inference.propagation.study_start import FirstLook, Seeds, Start, StartOptions, one_hot
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.training.stock_model import CHECKPOINT


@dataclass(frozen=True)
class PropagationOptions:
    """How masks are propagated; see ``Route``.

    Attributes:
        start: Where to begin.
        direction: Whether passes along time run forwards, or both ways where they can.
        cyclic: Whether the first frame follows the last; None asks the manifest, or looks at the images.
        capacity: Largest number of frames that a frame recalls, T_max.
        continuity: Whether slices are linked along time, to their neighbours, or both as they should be.
        least_confidence: Frames of which the networks are less sure are not remembered.
    """

    start: StartOptions = field(default_factory=StartOptions)
    direction: Direction = "both"
    cyclic: bool | None = None
    capacity: int = 3
    continuity: Continuity = "both"
    least_confidence: float = 0.0

    def __post_init__(self) -> None:
        check_capacity(self.capacity)


class StudyPrediction(NamedTuple):
    """Masks of a study.

    Attributes:
        masks: (T, Z, Y, X) label values.
        probabilities: (K, T, Z, Y, X) float32, classes or regions; None unless asked for.
        records: What is known of each frame's mask, slice by slice.
        regions: The region of each slice.
    """

    masks: np.ndarray
    probabilities: np.ndarray | None
    records: list[FrameRecord]
    regions: Regions


class StudyPredictor:
    """A trained CSTM with all its folds on one device, which propagates masks through studies.

    Beyond the input and its masks, memory holds the seeds and two or three slices at a time: it does not grow with the
    number of slices. Nothing is changed by predicting: threads may share a predictor.

    Source: CSTM (WACV 2025), 4D propagation; the automatic start, several seeds and blending are ours.

    Attributes:
        model: The model.
        options: How to propagate.
    """

    def __init__(
        self,
        model: TrainedModel,
        device: torch.device | str = "cpu",
        options: PropagationOptions = PropagationOptions(),
        *,
        seed_model: SequencePredictor | None = None,
        mirror: bool = False,
        patch: int | None = None,
        top_k: int | None = None,
        stages: tuple[int, ...] | None = None,
    ) -> None:
        """Move the networks to the device.

        Args:
            model: The model.
            device: Where to compute.
            options: How to propagate.
            seed_model: Makes the masks to begin with, where none are given; None leaves that to the model itself.
            mirror: See ``MaskMemory``, as for the three others.
            patch: Side of a matched patch.
            top_k: Patches to read from.
            stages: Stages at which the memory is read.

        Raises:
            InputError: See ``MaskMemory``; or the two models have different labels.
        """
        self.model, self.options, self._seed_model = model, options, seed_model
        if seed_model is not None:
            _check_labels(seed_model.model, model)
        self._memory = MaskMemory(model, torch.device(device), mirror=mirror, patch=patch, top_k=top_k, stages=stages)

    @classmethod
    def from_model_folder(
        cls,
        folder: Path | str,
        folds: Sequence[int | str] | None = None,
        device: torch.device | str = "cpu",
        options: PropagationOptions = PropagationOptions(),
        *,
        checkpoint_name: str = CHECKPOINT,
        seed_folder: Path | str | None = None,
        **matching: Any,  # noqa: ANN401 - handed on
    ) -> "StudyPredictor":
        """Read a model from nnU-Net's results folder, as ``SequencePredictor.from_model_folder`` does.

        Args:
            folder: ``TRAINER__PLANS__CONFIGURATION``.
            folds: Folds that look at each frame together; None takes those of the cross-validation that there are.
            device: Where to predict.
            options: How to propagate.
            checkpoint_name: File in the folders of the folds.
            seed_folder: Folder of another model, which makes the masks to begin with.
            matching: See ``StudyPredictor``.
        """
        seed_model = None if seed_folder is None else SequencePredictor.from_model_folder(seed_folder, device=device)
        model = TrainedModel.read(Path(folder), folds, checkpoint_name)
        return cls(model, device, options, seed_model=seed_model, **matching)

    def predict(
        self,
        image: np.ndarray,
        pixel_mm: tuple[float, float],
        seeds: Seeds | None = None,
        *,
        with_probabilities: bool = False,
    ) -> StudyPrediction:
        """Segment a study.

        Args:
            image: Grey values (T, Z, Y, X) or (C, T, Z, Y, X) of any number type.
            pixel_mm: In-plane spacing (y, x) in mm.
            seeds: Given masks, which are kept as they are; None begins with masks of the networks' own.
            with_probabilities: Whether to return probabilities too.

        Raises:
            InputError: The image has other axes or channels than the model takes, or pixels are not finite; see
                ``segment``.
        """
        image = image[None] if image.ndim == 4 else image
        if image.ndim != 5:
            raise InputError(f"found an image of shape {image.shape}, expected (T, Z, Y, X) or (C, T, Z, Y, X)")
        slices = {z: self.prepare(image[:, :, z], pixel_mm) for z in range(image.shape[2])}
        return self.segment(slices, seeds, with_probabilities=with_probabilities)

    def prepare(self, image: np.ndarray, pixel_mm: tuple[float, float]) -> PreparedSequence:
        """Measure what preprocessing needs to know of a slice (C, T, Y, X); see ``SequencePredictor.prepare``."""
        return self.model.prepare(image, pixel_mm)

    @torch.inference_mode()
    def segment(
        self,
        slices: Mapping[int, PreparedSequence],
        seeds: Seeds | None = None,
        *,
        ed: int | None = None,
        cyclic: bool | None = None,
        with_probabilities: bool = False,
        clock: StageClock | None = None,
    ) -> StudyPrediction:
        """Segment the prepared slices of a study; see ``predict``.

        Args:
            slices: {slice: prepared sequence}, 0 to Z - 1.
            seeds: Given masks.
            ed: The end-diastolic moment, if it is known.
            cyclic: Whether the first frame follows the last, if it is known.
            with_probabilities: Whether to return probabilities too.
            clock: Counts the seconds of each stage.

        Raises:
            InputError: Slices are missing or differ, seeds do not fit the study, or no heart is found to begin with.
        """
        clock = clock or StageClock()
        canvas = StudyCanvas.of(slices)
        if seeds is not None:
            check_seeds(seeds, canvas.shape, {0, *self.model.labels.foreground_labels})
        with clock.stage("network"):
            start = FirstLook(self._memory, canvas, self._seed_model).start(self.options.start, seeds, ed)
        route, sure = self._route(canvas, start, cyclic), self.options.least_confidence
        study_pass = StudyPass(self._memory, canvas, route, start.regions, start.masks, sure, clock)
        return self._collect(study_pass, start.given, with_probabilities)

    def _route(self, canvas: StudyCanvas, start: Start, cyclic: bool | None) -> Route:
        return Route(
            len(canvas.slices),
            canvas.frames,
            frozenset(start.masks),
            apical=start.regions.apical,
            cyclic=self._is_cyclic(canvas, cyclic),
            direction=self.options.direction,
            capacity=self.options.capacity,
            continuity=self.options.continuity,
        )

    def _is_cyclic(self, canvas: StudyCanvas, known: bool | None) -> bool:
        cyclic = known if self.options.cyclic is None else self.options.cyclic
        if cyclic is not None:
            return cyclic
        return estimate_cycle(canvas.slices[len(canvas.slices) // 2].image).kind == "closed"

    def _collect(self, study_pass: StudyPass, given: Seeds, with_probabilities: bool) -> StudyPrediction:
        """Go through the study and put its slices together on their own pixels; given masks stay as they are."""
        canvas, labels = study_pass.canvas, self.model.labels
        masks = np.zeros(canvas.shape, mask_type(labels))
        probabilities = background_probabilities(labels, canvas.shape) if with_probabilities else None
        records: dict[int, list[FrameRecord]] = {}
        for done in study_pass.run():
            records[done.slice] = done.records
            with study_pass.clock.stage("post-process"):
                for index, native, (rows, columns) in _to_native(done, canvas):
                    masks[index, done.slice, rows, columns] = self._memory.labels_of(native)
                    if probabilities is not None:
                        probabilities[:, index, done.slice, rows, columns] = native.cpu().numpy()
        for place, mask in given.items():
            masks[place.frame, place.slice] = mask
            if probabilities is not None:
                probabilities[:, place.frame, place.slice] = one_hot(mask, self.model).numpy()
        in_order = [record for z in sorted(records) for record in records[z]]
        return StudyPrediction(masks, probabilities, in_order, study_pass.regions)


def _to_native(done: SliceMasks, canvas: StudyCanvas) -> Iterator[tuple[np.ndarray, Tensor, tuple[slice, slice]]]:
    """Yield frames of a slice, their probabilities (K, N, Y, X) on its pixels, and where these are."""
    frames = np.array(sorted(done.probabilities), dtype=np.int64)
    for start in range(0, len(frames), FRAMES_PER_PASS):
        index = frames[start : start + FRAMES_PER_PASS]
        native, place = canvas.to_native(done.slice, torch.stack([done.probabilities[int(t)] for t in index], 1))
        yield index, native, place


def _check_labels(seed_model: TrainedModel, model: TrainedModel) -> None:
    found, expected = (
        {name: value for name, value in each.dataset["labels"].items() if name != IGNORE}
        for each in (seed_model, model)
    )
    if found != expected:
        raise InputError(f"seed model: found the labels {found}, expected {expected}, those of the model")
