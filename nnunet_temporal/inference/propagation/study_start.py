"""With which masks the propagation through a study begins: given ones, or those of a first look at it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.label_scheme import LabelScheme, label_scheme_of
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.preparation import PreparedSequence
from nnunet_temporal.inference.propagation.mask_memory import FRAMES_PER_PASS, MaskMemory
from nnunet_temporal.inference.propagation.regions import ApexAt, Regions, find_apex, given_regions, split_regions
from nnunet_temporal.inference.propagation.route import Place
from nnunet_temporal.inference.propagation.scout import largest_frame, look_around
from nnunet_temporal.inference.propagation.study_canvas import StudyCanvas
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.losses.memberships import memberships_of

Seeds = Mapping[Place, np.ndarray]
"""Label values (Y, X) of places whose mask is given."""


@dataclass(frozen=True)
class StartOptions:
    """How to begin where no mask is given, and what to call base and apex.

    Attributes:
        frame: Moment of the automatic masks; None takes the manifest's ED, or the largest ventricle.
        all_slices: Whether there are automatic masks in all slices, and not only in the best one.
        apex_at: The end of the stack at which the apex is; None looks at the areas.
        regions: Numbers of slices of base, middle and apex; None makes thirds. Needs ``apex_at``.

    Raises:
        InputError: Regions are counted, but nobody says from which end.
    """

    frame: int | None = None
    all_slices: bool = False
    apex_at: ApexAt | None = None
    regions: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.regions is not None and self.apex_at is None:
            raise InputError("regions: base, middle and apex are counted from the base; say where the apex is as well")


class Start(NamedTuple):
    """Where the propagation begins.

    Attributes:
        regions: Region of each slice.
        masks: {place: (K, Y, X)}, probabilities on the canvas.
        given: Those of the masks that stay exactly as they are in the result, as label values (Y, X).
    """

    regions: Regions
    masks: dict[Place, Tensor]
    given: Seeds


@dataclass
class FirstLook:
    """Looks at frames of a study without memory, by the networks that will propagate or by another model.

    Attributes:
        memory: The networks that will propagate.
        canvas: The study.
        other: A model to look with in their place.
    """

    memory: MaskMemory
    canvas: StudyCanvas
    other: SequencePredictor | None
    _prepared: dict[int, PreparedSequence] = field(init=False, default_factory=dict)

    @cached_property
    def labels(self) -> LabelScheme:
        """The labels of the model, by name where they are no regions."""
        model = self.memory.model
        if model.labels.has_regions:
            return LabelScheme({str(value): value for value in model.labels.foreground_labels}, None, {})
        return label_scheme_of(model.dataset["labels"], "dataset.json of the model")

    def start(self, options: StartOptions, seeds: Seeds | None, ed: int | None) -> Start:
        """Choose where to begin.

        Args:
            options: What the user wants.
            seeds: Given masks; None makes some.
            ed: The end-diastolic moment, if it is known.

        Raises:
            InputError: The moment does not exist, or no heart is found in it.
        """
        slices = len(self.canvas.slices)
        told = _told_regions(options, slices)
        if seeds is not None and told is not None:
            return self._start_with(seeds, told)
        frame = self._first_frame(options, seeds, ed)
        profile = look_around(self.look, slices, frame, self.labels)
        regions = told or split_regions(profile.areas, options.apex_at or find_apex(profile.areas))
        if seeds is not None:
            return self._start_with(seeds, regions)
        if profile.best_slice is None:
            raise InputError(f"found no heart in frame {frame} of any slice; give a mask to begin with (--seed)")
        shown = [z for z in range(slices) if not self.canvas.slices[z].blank[frame]]
        chosen = shown if options.all_slices else [z for z in shown if z == profile.best_slice]
        if self.other is None:
            return Start(regions, {Place(z, frame): self._segment(z, np.array([frame]))[:, 0] for z in chosen}, {})
        return self._start_with({Place(z, frame): self.look(z, np.array([frame]))[0][0] for z in chosen}, regions)

    def _start_with(self, seeds: Seeds, regions: Regions) -> Start:
        return Start(regions, {place: self.on_canvas(place.slice, mask) for place, mask in seeds.items()}, seeds)

    def look(self, z: int, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segment frames of a slice: label values (N, Y, X), and how sure each pixel is (N, Y, X) in 0..1."""
        if self.other is None:
            probabilities = self.canvas.crop(z, self._segment(z, index))
            masks = self.memory.labels_of(probabilities)
            masks[self.canvas.slices[z].blank[index]] = 0  # padding, whatever the networks see in it
            return masks, probabilities.amax(0).cpu().numpy()
        if z not in self._prepared:
            sequence = self.canvas.slices[z]
            self._prepared[z] = self.other.prepare(sequence.image, sequence.preparation.pixel_mm)
        found = self.other.segment(self._prepared[z].only(index), with_probabilities=True)
        assert found.probabilities is not None  # they were asked for
        return found.masks, found.probabilities.max(0)

    def on_canvas(self, z: int, mask: np.ndarray) -> Tensor:
        """Turn label values (Y, X) of a slice into probabilities (K, Y, X) on the canvas, of 0 and 1."""
        return one_hot(self.canvas.from_native(z, mask), self.memory.model).to(self.memory.device)

    def _segment(self, z: int, index: np.ndarray) -> Tensor:
        """Segment frames of a slice by the networks that will propagate: (K, N, Y, X) on the canvas."""
        windows = self.memory.windows(self.canvas.size)
        parts = np.array_split(index, -(-len(index) // FRAMES_PER_PASS))
        found = [self.memory.segment(self.canvas.prepare(z, part), [()] * len(part), windows)[0] for part in parts]
        return torch.cat(found, 1)

    def _first_frame(self, options: StartOptions, seeds: Seeds | None, ed: int | None) -> int:
        """Return the moment to look at: that of the first seed, the given one, ED, or that of the largest ventricle."""
        if seeds is not None:
            return min(seeds).frame
        frame = ed if options.frame is None else options.frame
        if frame is None:
            return largest_frame(self.look, len(self.canvas.slices) // 2, self.canvas.frames, self.labels)
        if not 0 <= frame < self.canvas.frames:
            raise InputError(f"found frame {frame} to begin with, expected one of 0..{self.canvas.frames - 1}")
        return frame


def one_hot(mask: np.ndarray, model: TrainedModel) -> Tensor:
    """Turn label values (Y, X) into probabilities (K, Y, X) of 0 and 1, of classes or regions."""
    labels = model.labels
    regions = labels.foreground_regions if labels.has_regions else None
    batch = torch.from_numpy(mask.astype(np.int64))[None, None]
    return memberships_of(batch, labels.num_segmentation_heads, ignore_label=None, regions=regions)[0][0]


def _told_regions(options: StartOptions, slices: int) -> Regions | None:
    if options.regions is None or options.apex_at is None:
        return None
    return given_regions(options.regions, slices, options.apex_at)
