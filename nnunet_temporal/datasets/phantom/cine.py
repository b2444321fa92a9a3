"""The cine phantom: a stack of short-axis slices of a beating heart, with the truth of every frame."""

import math
from dataclasses import dataclass

import numpy as np

from nnunet_temporal.datasets.phantom.chest import draw_chest, paint_chest
from nnunet_temporal.datasets.phantom.cine_image import receive, slice_painter
from nnunet_temporal.datasets.phantom.cine_look import draw_cine_look
from nnunet_temporal.datasets.phantom.heartbeat import Heartbeat
from nnunet_temporal.datasets.phantom.left_ventricle import beat_left_ventricle, draw_left_ventricle
from nnunet_temporal.datasets.phantom.phantom_study import PhantomSequence, PhantomStudy
from nnunet_temporal.datasets.phantom.right_ventricle import beat_right_ventricle, draw_right_ventricle
from nnunet_temporal.datasets.phantom.short_axis import Heart, cross_section, slice_coordinates

_N_SLICES_RANGE = (8, 12)
_SLICE_MM_RANGE = (8.0, 9.4)


@dataclass(frozen=True)
class SliceStack:
    """The grid a heart is imaged on.

    Attributes:
        heights_mm: (Z,) z of the slices' centres, from base to apex.
        thickness_mm: Thickness of a slice; the rest of the distance to the next one is a gap.
        pixel_mm: Size of a pixel.
        axis_mm: (Z, 2) x and y from the middle of the image to the heart's axis in each slice. Slices are taken in
            different breath-holds, so they are a little shifted.
        turn: Angle by which heart and chest are turned in the image, in radians.
        bend_mm: Sizes of two wavy shears of the slices, which make all shapes irregular and keep all areas.
        bend_phase: Their phases.
    """

    heights_mm: np.ndarray
    thickness_mm: float
    pixel_mm: float
    axis_mm: np.ndarray
    turn: float
    bend_mm: tuple[float, float]
    bend_phase: tuple[float, float]

    @property
    def slice_mm(self) -> float:
        """Distance between the centres of neighbouring slices."""
        return float(self.heights_mm[1] - self.heights_mm[0])


def draw_cine_study(name: str, heartbeat: Heartbeat, size: int, rng: np.random.Generator) -> PhantomStudy:
    """Draw a study of 8 to 12 slices, labels as in ``short_axis.LABELS``.

    Args:
        name: Name of the study.
        heartbeat: Its volume curve and frames.
        size: Rows and columns of a slice. The field of view grows with the heart, not with the size.
        rng: Source of all random numbers.

    Returns:
        The study, with analytic volumes of RV, MYO and LV.
    """
    left = beat_left_ventricle(draw_left_ventricle(heartbeat.ef_percent, rng), heartbeat)
    heart = Heart(left, beat_right_ventricle(draw_right_ventricle(left, heartbeat.ef_percent, rng), left))
    stack = _draw_stack(heart, size, rng)
    look, chest = draw_cine_look(heart, rng), draw_chest(float(left.outer_radius_mm.max()), rng)
    centre_mm = left.contraction[:, None] * rng.uniform(-2.5, 2.5, 2)
    sequences = []
    for z, height_mm in enumerate(stack.heights_mm.tolist()):
        x_mm, y_mm = _pixel_positions(stack, z, size)
        at = slice_coordinates(x_mm, y_mm, centre_mm, heart)
        surroundings = paint_chest(chest, x_mm, y_mm, height_mm, stack.pixel_mm, rng)
        painter = slice_painter(look, heart, at, stack.pixel_mm, height_mm)
        image = receive(look, painter.paint_slice(surroundings, height_mm, stack.thickness_mm), rng)
        sequences.append(PhantomSequence(image, cross_section(at, height_mm, heart).truth(), slice=z))
    return PhantomStudy(
        name=name,
        sequences=tuple(sequences),
        heartbeat=heartbeat,
        volumes_ml={
            "RV": heart.right.volume_ml,
            "MYO": np.full_like(left.volume_ml, left.shape.wall_ml),
            "LV": left.volume_ml,
        },
        pixel_mm=(stack.pixel_mm, stack.pixel_mm),
        slice_mm=stack.slice_mm,
        cyclic=heartbeat.is_cyclic,
    )


def _draw_stack(heart: Heart, size: int, rng: np.random.Generator) -> SliceStack:
    left = heart.left.shape
    # The first slice lies above the base (its centre at -above slices), the last one in the wall of the apex.
    above = rng.uniform(0.4, 1.1)
    end_mm = left.length_mm + rng.uniform(0.2, 0.8) * left.apex_wall_mm
    n_slices = int(np.clip(round(1 + above + end_mm / rng.uniform(*_SLICE_MM_RANGE)), *_N_SLICES_RANGE))
    slice_mm = end_mm / (n_slices - 1 - above)
    # The middle of both ventricles is near the middle of the image.
    turn = math.radians(rng.uniform(-35, 35))
    outer_mm = float(heart.left.outer_radius_mm.max())
    right_mm = math.hypot(outer_mm, float(heart.right.size_mm.max()))
    towards_right = heart.right.shape.angle + turn
    axis_mm = (outer_mm - right_mm) / 2 * np.array([math.cos(towards_right), math.sin(towards_right)])
    return SliceStack(
        heights_mm=(np.arange(n_slices) - above) * slice_mm,
        thickness_mm=slice_mm * rng.uniform(0.75, 1.0),
        pixel_mm=(outer_mm + right_mm) * rng.uniform(1.35, 1.7) / size,
        axis_mm=axis_mm + rng.uniform(-7, 7, 2) + rng.normal(0, 0.8, (n_slices, 2)),
        turn=turn,
        bend_mm=(rng.uniform(0.8, 1.8), rng.uniform(0.8, 1.8)),
        bend_phase=(rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi)),
    )


def _pixel_positions(stack: SliceStack, z: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y (Y, X) of the pixels of a slice in mm from the heart's axis, turned and bent with the patient."""
    centred = (np.arange(size) - (size - 1) / 2) * stack.pixel_mm
    y, x = np.meshgrid(centred - stack.axis_mm[z, 1], centred - stack.axis_mm[z, 0], indexing="ij")
    cos, sin = math.cos(stack.turn), math.sin(stack.turn)
    x, y = x * cos + y * sin, y * cos - x * sin
    # Shears keep areas, one after the other as well. The waves drift with the height, so slices differ in shape.
    (bend_x, bend_y), (phase_x, phase_y) = stack.bend_mm, stack.bend_phase
    drift = stack.heights_mm[z] / 30
    x = x + bend_x * np.sin(y / 10 + phase_x + drift)
    y = y + bend_y * np.sin(x / 10 + phase_y - drift)
    return x, y
