"""Echo phantoms: the apical views 2CH and 4CH of a beating left heart, as a sector scanner shows them."""

import math

import numpy as np

from nnunet_temporal.datasets.phantom.apical_heart import VIEWS, ApicalHeart
from nnunet_temporal.datasets.phantom.apical_view import ApicalView
from nnunet_temporal.datasets.phantom.heartbeat import Heartbeat
from nnunet_temporal.datasets.phantom.lost_segment import LostSegment
from nnunet_temporal.datasets.phantom.moving_tissue import MovingTissue
from nnunet_temporal.datasets.phantom.phantom_study import PhantomSequence, PhantomStudy
from nnunet_temporal.datasets.phantom.scanner import Scanner
from nnunet_temporal.datasets.phantom.speckle import BeamGrid, range_and_angle, scan_convert

MIN_SIZE = 32

_HALF_ANGLE_RANGE = (0.52, 0.68)
_BEAM_RANGE = (0.03, 0.045)
_EDGE_RAD = 0.02
_EDGE_SHARE = 0.015
# A pulse is about as long as a scanner's, and never finer than the pixels can show.
_PULSE_MM = 1.3
_PULSE_PIXELS = 1.7


def draw_echo_study(
    name: str, heartbeat: Heartbeat, size: int, rng: np.random.Generator, lost_segment: LostSegment | None = None
) -> PhantomStudy:
    """Draw an echo study of the two apical views.

    Args:
        name: Name of the study.
        heartbeat: Its clock.
        size: Height and width of the images in pixels, at least 32.
        rng: Source of all random numbers.
        lost_segment: A segment of the wall that is lost in part of the beat; the masks stay those of the whole heart.

    Returns:
        The study: the sequences 2CH and 4CH, grey values in whole numbers 0 to 255, labels LV 1, MYO 2 and LA 3.

    Raises:
        ValueError: The size is below 32.
    """
    if size < MIN_SIZE:
        raise ValueError(f"size must be at least {MIN_SIZE} pixels, got {size}")
    heart = ApicalHeart.draw(rng)
    # The probe is turned between the views, so each has its own pose.
    views = [ApicalView.draw(view, heart, heartbeat, rng) for view in VIEWS]
    pixel_mm, beams = draw_sector(views, size, rng)
    scanner = Scanner.draw(beams, rng)
    return PhantomStudy(
        name=name,
        sequences=tuple(scan_view(view, scanner, pixel_points(size, pixel_mm), rng, lost_segment) for view in views),
        heartbeat=heartbeat,
        volumes_ml=heart.volumes_ml(heartbeat.volume_share(heartbeat.phases())),
        pixel_mm=(pixel_mm, pixel_mm),
        cyclic=heartbeat.is_cyclic,
        lost_segment=lost_segment,
    )


def draw_sector(views: list[ApicalView], size: int, rng: np.random.Generator) -> tuple[float, BeamGrid]:
    """Draw a sector that holds ventricle and atrium of every view in every frame, and pixels that show it all.

    Returns:
        Size of a pixel in mm, and the beams.
    """
    borders_mm = [_cavity_border(view, phase) for view in views for phase in view.heartbeat.phases()]
    ranges_mm, angles = range_and_angle(np.concatenate(borders_mm))
    depth_mm = float(ranges_mm.max()) + rng.uniform(6.0, 22.0)
    half_angle = max(rng.uniform(*_HALF_ANGLE_RANGE), float(np.abs(angles).max()) + _EDGE_RAD)
    width_mm = 2 * math.sin(half_angle) * depth_mm
    pixel_mm = max(depth_mm, width_mm) * (1 + 2 * _EDGE_SHARE) / size
    pulse_mm = max(_PULSE_MM, _PULSE_PIXELS * pixel_mm)
    return pixel_mm, BeamGrid(depth_mm, half_angle, pulse_mm, rng.uniform(*_BEAM_RANGE))


def pixel_points(size: int, pixel_mm: float) -> np.ndarray:
    """Return the points (Y, X, 2) in mm of ``size`` x ``size`` pixels; the probe is near the middle of the top."""
    centres_mm = (np.arange(size) + 0.5) * pixel_mm
    y_mm, x_mm = centres_mm - _EDGE_SHARE * size * pixel_mm, centres_mm - size * pixel_mm / 2
    return np.stack(np.meshgrid(y_mm, x_mm, indexing="ij"), -1)


def scan_view(
    view: ApicalView,
    scanner: Scanner,
    pixels_mm: np.ndarray,
    rng: np.random.Generator,
    lost_segment: LostSegment | None = None,
) -> PhantomSequence:
    """Make the images and masks of one view.

    Args:
        view: The view.
        scanner: The settings of the scanner.
        pixels_mm: (Y, X, 2) points to show.
        rng: Source of all random numbers.
        lost_segment: A segment of the wall that is lost in part of the beat.

    Returns:
        The sequence; image and truth are 0 outside the sector.
    """
    tissue = MovingTissue(view, scanner.beams, rng, lost_segment)
    gain_db, clutter = scanner.draw_gain_db(rng), scanner.draw_clutter(rng)
    in_sector = scanner.beams.contains(pixels_mm)
    images, masks = [], []
    for phase in view.heartbeat.phases():
        grey = scanner.grey_values(tissue.signal(phase, rng) + clutter, gain_db, rng)
        images.append(np.rint(scan_convert(grey, scanner.beams, pixels_mm)).astype(np.float32))
        masks.append(np.where(in_sector, view.labels(pixels_mm, phase), np.uint8(0)))
    return PhantomSequence(image=np.stack(images), truth=np.stack(masks), view=view.name)


def _cavity_border(view: ApicalView, phase: float) -> np.ndarray:
    """Points (N, 2) on the border of ventricle and atrium at a phase."""
    outline = view.outline(phase)
    level_mm = np.linspace(0, outline.roof_mm, 100)
    places_mm = [np.stack([level_mm, side * outline.cavity_mm(level_mm)], -1) for side in (-1, 1)]
    return view.to_scan(np.concatenate(places_mm), phase)
