"""The way through one study: slice after slice, with no more of them in memory than others still recall."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import Tensor

from nnunet_temporal.inference.confidence import confidence_of
from nnunet_temporal.inference.pipeline import StageClock, ahead
from nnunet_temporal.inference.propagation.mask_memory import Entry, MaskMemory
from nnunet_temporal.inference.propagation.regions import Regions
from nnunet_temporal.inference.propagation.route import Place, Recall, Route, Row, last_uses
from nnunet_temporal.inference.propagation.row_pass import RowPass
from nnunet_temporal.inference.propagation.study_canvas import StudyCanvas
from nnunet_temporal.inference.propagation.study_records import FrameRecord, Origin, centre_of
from nnunet_temporal.inference.windows import Windows

_EMPTY_ROWS = 2
"""Slices without any foreground, one after the other, beyond which the heart is over at the apex."""


class SliceMasks(NamedTuple):
    """The final masks of a slice.

    Attributes:
        slice: Its index.
        probabilities: {frame: (K, Y, X) on the canvas}; frames that are blank or beyond the heart are missing.
        records: One per frame.
    """

    slice: int
    probabilities: Mapping[int, Tensor]
    records: list[FrameRecord]


@dataclass
class StudyPass:
    """Propagates the masks of seeds through a study.

    Attributes:
        memory: The networks.
        canvas: The study.
        route: The way.
        regions: Region of each slice.
        seeds: {place: mask (K, Y, X) on the canvas}.
        least_confidence: Frames of which the networks are less sure are not remembered; seeds always are.
        clock: Counts the seconds of each stage.
    """

    memory: MaskMemory
    canvas: StudyCanvas
    route: Route
    regions: Regions
    seeds: Mapping[Place, Tensor]
    least_confidence: float
    clock: StageClock
    _windows: Windows = field(init=False)
    _entries: dict[Recall, Entry] = field(init=False, default_factory=dict)
    _centres: dict[Place, np.ndarray | None] = field(init=False, default_factory=dict)

    def run(self) -> Iterator[SliceMasks]:
        """Segment all slices and yield each when it is done, in the order of the route."""
        self._windows = self.memory.windows(self.canvas.size)
        with self.clock.stage("network"):
            self._remember_seeds()
        rows = list(self.route.rows())
        uses = last_uses(rows)
        empty: dict[bool, int] = {}
        for row, frames in ahead(self._prepared(rows), depth=1):
            side = row.slice > self.route.first_slice
            if empty.get(side, 0) >= _EMPTY_ROWS and not self._has_seeds(row.slice):
                region = self.regions.names[row.slice]
                records = [FrameRecord(row.slice, t, region, "beyond the heart") for t in range(self.canvas.frames)]
                yield SliceMasks(row.slice, {}, records)
            else:
                with self.clock.stage("network"):
                    row_pass = self._segment(row, frames, remember=row.slice in uses)
                    records = [self._record(row, row_pass, t) for t in range(self.canvas.frames)]
                yield SliceMasks(row.slice, row_pass.probabilities, records)
                if self._is_towards_apex(row):
                    found = any(self._centres[Place(row.slice, t)] is not None for t in range(self.canvas.frames))
                    empty[side] = 0 if found else empty.get(side, 0) + 1
            over = {z for z, last in uses.items() if last == row.slice}
            self._forget(over if row.slice in uses else over | {row.slice})

    def _prepared(self, rows: list[Row]) -> Iterator[tuple[Row, np.ndarray]]:
        for row in rows:
            with self.clock.stage("resample"):
                frames = self.canvas.prepare(row.slice, np.arange(self.canvas.frames))
            yield row, frames

    def _remember_seeds(self) -> None:
        for place, mask in self.seeds.items():
            frame = self.canvas.prepare(place.slice, np.array([place.frame]))
            keys = self.memory.keys(frame, self._windows)
            values = self.memory.values(frame, mask.unsqueeze(1), self._windows)
            self._entries[Recall(place, 0)] = Entry(keys[0], values[0])

    def _segment(self, row: Row, frames: np.ndarray, *, remember: bool) -> RowPass:
        own = {place.frame: mask for place, mask in self.seeds.items() if place.slice == row.slice}
        blank = self.canvas.slices[row.slice].blank
        row_pass = RowPass(self.memory, self._windows, frames, blank, self.least_confidence, own, self._entries)
        row_pass.run(row, remember=remember)
        return row_pass

    def _forget(self, slices: set[int]) -> None:
        """Forget slices that nothing recalls any more; seeds are kept for good."""
        for recall in [recall for recall in self._entries if recall.place.slice in slices]:
            if recall.place not in self.seeds:
                del self._entries[recall]

    def _record(self, row: Row, row_pass: RowPass, frame: int) -> FrameRecord:
        place, region = Place(row.slice, frame), self.regions.names[row.slice]
        mask = row_pass.probabilities.get(frame)
        self._centres[place] = None
        if mask is None:
            return FrameRecord(row.slice, frame, region, "blank")
        mask = self.canvas.crop(row.slice, mask)
        self._centres[place] = centre_of(self.memory.labels_of(mask), self.canvas.corners[row.slice])
        jump = self._jump(place, row.neighbour)
        sure = confidence_of(mask.unsqueeze(1), overlapping=self.memory.overlapping)[0]
        if jump is not None and jump > self.memory.patch_pixels:
            sure *= self.memory.patch_pixels / jump
        origin: Origin = "seed" if place in self.seeds else "time" if row.along_time else "slices"
        return FrameRecord(row.slice, frame, region, origin, sure, row_pass.agreement.get(frame), jump)

    def _jump(self, place: Place, neighbour: int | None) -> float | None:
        here = self._centres[place]
        there = None if neighbour is None else self._centres.get(Place(neighbour, place.frame))
        return None if here is None or there is None else float(np.linalg.norm(here - there))

    def _has_seeds(self, z: int) -> bool:
        return any(place.slice == z for place in self.seeds)

    def _is_towards_apex(self, row: Row) -> bool:
        step = row.slice - self.route.first_slice
        return step > 0 if self.regions.apex_at == "last" else step < 0 and self.regions.apex_at == "first"
