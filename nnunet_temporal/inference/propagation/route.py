"""In which order the frames of a study are segmented, and what each of them recalls.

A study is a grid of places: slice and frame. From places with a known mask, the seeds, a path leads through the
slice of the seeds along time, and from there slice by slice to both ends of the stack. Nothing here knows images.

Source: CSTM (WACV 2025), 4D propagation. The heart moves through the imaging plane near base and apex, so that time is
not continuous there, while neighbouring slices of one moment are. Several seeds, heart cycles that close, and
blending of two directions are ours.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from nnunet_temporal.errors import InputError

Direction = Literal["forward", "both"]
Continuity = Literal["both", "time", "slices"]


class Place(NamedTuple):
    """A frame of a study: index of its slice and of its moment."""

    slice: int
    frame: int


class Recall(NamedTuple):
    """A remembered frame: its place, and whether the mask is the final one, 0, or the one of a pass, +1 or -1."""

    place: Place
    way: int


@dataclass(frozen=True)
class Visit:
    """A frame that is segmented once.

    Attributes:
        frame: Its moment.
        way: 0; or the pass along time that it is part of, +1 forwards and -1 backwards.
        recalls: What it remembers, without repetition.
        weight: How much the mask counts for the final one, where two passes meet; 0 if it is only compared with it.
    """

    frame: int
    way: int
    recalls: tuple[Recall, ...]
    weight: float = 1.0


Wave = tuple[Visit, ...]
"""Visits of one slice that do not need each other."""


class Row(NamedTuple):
    """How one slice is segmented.

    Attributes:
        slice: Its index.
        neighbour: The slice next to it that was segmented before; None for the first.
        waves: Visits in their order.
    """

    slice: int
    neighbour: int | None
    waves: tuple[Wave, ...]

    @property
    def along_time(self) -> bool:
        """Whether passes along time are part of it."""
        return any(visit.way for wave in self.waves for visit in wave)


@dataclass(frozen=True)
class Route:
    """The way through a study.

    Attributes:
        slices: Number of slices Z.
        frames: Number of frames T.
        seeds: Places whose mask is known, at least one.
        apical: Slices that are also linked along time where they have no seed of their own.
        cyclic: Whether the first frame follows the last.
        direction: ``forward`` reaches a frame from the latest seed before it, where there is one; ``both`` also from
            the next one after it, around the end of a cyclic sequence if need be.
        capacity: Largest number of frames that a frame recalls, T_max, at least 2: a seed, the neighbouring slice and
            then earlier visits of the own slice. A pass without a neighbouring slice always recalls one visit.
        continuity: Whether slices are linked along time, to their neighbours, or both as they should be.
    """

    slices: int
    frames: int
    seeds: frozenset[Place]
    apical: frozenset[int] = frozenset()
    cyclic: bool = False
    direction: Direction = "both"
    capacity: int = 3
    continuity: Continuity = "both"

    def __post_init__(self) -> None:
        outside = [seed for seed in self.seeds if not (seed.slice < self.slices and seed.frame < self.frames)]
        if not self.seeds or outside:
            raise InputError(f"seeds: found {outside or 'none'}, expected frames of {self.slices} x {self.frames}")
        check_capacity(self.capacity)

    @property
    def first_slice(self) -> int:
        """The slice that is segmented first: of those with most seeds the one nearest to the middle of the stack."""
        seeds_of = {seed.slice: len(self._seeds_of(seed.slice)) for seed in self.seeds}
        middle = (self.slices - 1) / 2
        return min(seeds_of, key=lambda z: (-seeds_of[z], abs(z - middle), z))

    @property
    def first_frame(self) -> int:
        """The moment of the first seed in the first slice."""
        return self._seeds_of(self.first_slice)[0]

    def rows(self) -> Iterator[Row]:
        """Yield the slices in their order: the first one, then one by one to the first and to the last of the stack."""
        first = self.first_slice
        yield self._row(first, None)
        for z in range(first - 1, -1, -1):
            yield self._row(z, z + 1)
        for z in range(first + 1, self.slices):
            yield self._row(z, z - 1)

    def nearest_seed(self, place: Place) -> Place:
        """Return the seed that a place recalls for good: of the nearest slice with seeds the nearest in time."""

        def distance(seed: Place) -> tuple[int, int, Place]:
            return abs(seed.slice - place.slice), self._gap(seed.frame, place.frame), seed

        return min(self.seeds, key=distance)

    def _seeds_of(self, z: int) -> list[int]:
        return sorted(seed.frame for seed in self.seeds if seed.slice == z)

    def _gap(self, one: int, other: int) -> int:
        gap = abs(one - other)
        return min(gap, self.frames - gap) if self.cyclic else gap

    def _row(self, z: int, neighbour: int | None) -> Row:
        linked = None if self.continuity == "time" else neighbour
        starts = self._seeds_of(z)
        along_time = bool(starts) or neighbour is None or self.continuity == "time"
        along_time |= z in self.apical and self.capacity > 2
        if self.continuity == "slices" or not along_time:
            missing = [t for t in range(self.frames) if t not in starts]
            wave = tuple(Visit(t, 0, self._recalls(Place(z, t), linked)) for t in missing)
            return Row(z, neighbour, (wave,) if wave else ())
        if starts:
            return Row(z, neighbour, (*self._passes(z, linked, starts), *self._once_around(z, starts)))
        anchor = self.first_frame
        first = Visit(anchor, 0, self._recalls(Place(z, anchor), linked))
        return Row(z, neighbour, ((first,), *self._passes(z, linked, [anchor])))

    def _passes(self, z: int, neighbour: int | None, starts: list[int]) -> Iterator[Wave]:
        """Go from known frames along time, one frame a wave in every direction."""
        ways = {way: self._distances(starts, way) for way in (1, -1)}
        visits: dict[int, list[Visit]] = {}
        for t in (t for t in range(self.frames) if t not in starts):
            reached = {way: distances[t] for way, distances in ways.items() if t in distances}
            if self.direction == "forward" and 1 in reached:
                reached = {1: reached[1]}
            total = sum(reached.values())
            for way, distance in reached.items():
                # The nearer the start, the more a pass counts; alone it counts fully.
                weight = 1.0 if len(reached) == 1 else 1 - distance / total
                earlier = self._earlier(z, t, way, distance)
                visit = Visit(t, way, self._recalls(Place(z, t), neighbour, earlier), weight)
                visits.setdefault(distance, []).append(visit)
        yield from (tuple(visits[distance]) for distance in sorted(visits))

    def _once_around(self, z: int, starts: list[int]) -> Iterator[Wave]:
        """Find the only seed of a slice again, without showing it: that tells how far the pass has drifted."""
        if self.cyclic and len(starts) == 1 and self.frames > 1:
            last = Recall(Place(z, (starts[0] - 1) % self.frames), 1)
            yield (Visit(starts[0], 1, (last,), 0.0),)

    def _distances(self, starts: list[int], way: int) -> dict[int, int]:
        """Return how many frames after the nearest start a pass reaches each frame that it reaches."""
        distances: dict[int, int] = {}
        for start in starts:
            for distance in range(1, self.frames):
                t = start + way * distance
                t = t % self.frames if self.cyclic else t
                if t in starts or not 0 <= t < self.frames:
                    break
                distances[t] = distance
        return distances

    def _earlier(self, z: int, t: int, way: int, distance: int) -> list[Recall]:
        """List the frames that a pass came through, the latest first; the last of them is where it started."""
        frames = [(t - way * step) % self.frames for step in range(1, distance + 1)]
        return [Recall(Place(z, frame), way) for frame in frames[:-1]] + [Recall(Place(z, frames[-1]), 0)]

    def _recalls(self, place: Place, neighbour: int | None, earlier: Iterable[Recall] = ()) -> tuple[Recall, ...]:
        """Choose what a place recalls: a seed, the neighbouring slice, and frames that its pass came through."""
        fixed = [Recall(self.nearest_seed(place), 0)]
        if neighbour is not None:
            fixed.append(Recall(Place(neighbour, place.frame), 0))
        # CSTM's T_max is 3 for slices with a neighbour and a pass, 2 for a pass alone: one frame of the pass in both.
        of_pass = self.capacity - 2 if neighbour is not None else max(1, self.capacity - 2)
        return tuple(dict.fromkeys([*fixed, *list(earlier)[:of_pass]]))


def check_capacity(capacity: int) -> None:
    """Raise InputError unless a frame may recall a seed and one other frame."""
    if capacity < 2:
        raise InputError(f"tmax: found {capacity}, expected 2 or more: a seed and one other frame")


def last_uses(rows: Iterable[Row]) -> dict[int, int]:
    """Return, for each slice that others recall as their neighbour, the last of these."""
    return {row.neighbour: row.slice for row in rows if row.neighbour is not None}
