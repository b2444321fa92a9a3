"""One slice of a study: its visits in their order, and the final masks that follow from them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from nnunet_temporal.inference.confidence import confidence_of
from nnunet_temporal.inference.propagation.mask_memory import FRAMES_PER_PASS, Entry, MaskMemory
from nnunet_temporal.inference.propagation.route import Place, Recall, Row, Visit
from nnunet_temporal.inference.propagation.study_records import mean_dice
from nnunet_temporal.inference.windows import Windows

_Found = dict[int, list[tuple[Visit, Tensor]]]


@dataclass
class RowPass:
    """Segments the frames of one slice.

    Attributes:
        memory: The networks.
        windows: Windows for frames of the study.
        frames: (C, T, Y, X) float32, prepared.
        blank: (T,) bool, frames that are zero everywhere; they are neither segmented nor remembered.
        least_confidence: Frames of which the networks are less sure are not remembered.
        probabilities: {frame: final mask (K, Y, X)}, to begin with those of the seeds.
        entries: What may be recalled of other slices, and of the seeds of this one; what this slice adds.
        agreement: {frame: Dice of two masks found on different ways}.
    """

    memory: MaskMemory
    windows: Windows
    frames: np.ndarray
    blank: np.ndarray
    least_confidence: float
    probabilities: dict[int, Tensor]
    entries: dict[Recall, Entry]
    agreement: dict[int, float] = field(default_factory=dict)

    def run(self, row: Row, *, remember: bool) -> None:
        """Go through all visits.

        Args:
            row: The visits.
            remember: Whether another slice recalls this one.
        """
        found: _Found = {}
        last = {recall: number for number, wave in enumerate(row.waves) for visit in wave for recall in visit.recalls}
        for number, wave in enumerate(row.waves):
            for visits, recalled in self._together(wave):
                frames = self.frames[:, [visit.frame for visit in visits]]
                masks, keys = self.memory.segment(frames, recalled, self.windows)
                for visit, mask in zip(visits, masks.unbind(1), strict=True):
                    found.setdefault(visit.frame, []).append((visit, mask))
                if remember or number + 1 < len(row.waves):
                    values = self.memory.values(frames, masks, self.windows)
                    sure = confidence_of(masks, overlapping=self.memory.overlapping)
                    for visit, entry, confidence in zip(visits, map(Entry, keys, values), sure, strict=True):
                        if confidence >= self.least_confidence:
                            self.entries[Recall(Place(row.slice, visit.frame), visit.way)] = entry
            if not remember:  # long movies would fill the memory with frames that nothing recalls any more
                for recall in {recall for visit in wave for recall in visit.recalls if recall.way}:
                    if last[recall] == number:
                        self.entries.pop(recall, None)
        while found:  # each frame is let go of as soon as its final mask is there
            frame, ways = found.popitem()
            self._settle(Place(row.slice, frame), ways, remember=remember)

    def _together(self, wave: tuple[Visit, ...]) -> Iterator[tuple[list[Visit], list[list[Entry]]]]:
        """Deal the visits of a wave out to calls in which all frames recall as many others."""
        recalled = {
            visit: [self.entries[recall] for recall in visit.recalls if recall in self.entries]
            for visit in wave
            if not self.blank[visit.frame]
        }

        def number(visit: Visit) -> int:
            return len(recalled[visit])

        for others, alike in groupby(sorted(recalled, key=number), number):
            if not others:  # nothing has come round to the only seed of a slice: there is nothing to compare it with
                continue
            visits = list(alike)
            for start in range(0, len(visits), FRAMES_PER_PASS):
                part = visits[start : start + FRAMES_PER_PASS]
                yield part, [recalled[visit] for visit in part]

    def _settle(self, place: Place, visits: list[tuple[Visit, Tensor]], *, remember: bool) -> None:
        """Blend what was found of a frame on its ways, and remember that in the place of what each way found."""
        masks = [mask for _, mask in visits]
        seed = self.probabilities.get(place.frame)
        compared = masks if seed is None else [seed, *masks]
        if len(compared) == 2:
            self.agreement[place.frame] = mean_dice(*map(self.memory.labels_of, compared))
        ways = [self.entries.pop(Recall(place, visit.way), None) for visit, _ in visits if visit.way]
        if seed is not None:
            return
        blend = torch.stack([visit.weight * mask for visit, mask in visits]).sum(0)
        self.probabilities[place.frame] = blend
        entry = next((entry for entry in ways if entry is not None), None)
        if remember and entry is not None:
            if len(ways) > 1:  # the keys are those of the image, and stay
                frame = self.frames[:, [place.frame]]
                entry = Entry(entry.keys, self.memory.values(frame, blend.unsqueeze(1), self.windows)[0])
            self.entries[Recall(place, 0)] = entry
