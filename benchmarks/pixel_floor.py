"""How small can the temporal error of masks get? Echo phantoms whose true outlines are moved by a part of a pixel.

A displacement that is the same in all frames has no error along time; what is measured is drawing on pixels. A mask
that stands still is measured beside it. sequence_scores.py says what the scores are.

    python benchmarks/pixel_floor.py --size 64
"""

import argparse
from collections.abc import Iterator

import numpy as np
from sequence_scores import STRUCTURES, areas_of, mean_dice, temporal_error_percent
from tqdm import tqdm

from nnunet_temporal.datasets.phantom.apical_heart import VIEWS, ApicalHeart
from nnunet_temporal.datasets.phantom.apical_view import ApicalView
from nnunet_temporal.datasets.phantom.echo import draw_sector, pixel_points
from nnunet_temporal.datasets.phantom.heartbeat import Heartbeat

MOVED_PIXELS = (0.1, 0.25, 0.5)


def measure(size: int, rng: np.random.Generator) -> Iterator[tuple[str, float, float]]:
    """Draw one study, and yield for each of its masks what was done to it, its temporal error and its Dice."""
    heartbeat = Heartbeat.draw(rng, frames_per_cycle_range=(20, 24), beats_range=(1, 1))
    heart = ApicalHeart.draw(rng)
    views = [ApicalView.draw(view, heart, heartbeat, rng) for view in VIEWS]
    pixel_mm, _ = draw_sector(views, size, rng)
    points = pixel_points(size, pixel_mm)
    for view in views:
        truth = _draw(view, points)
        areas = areas_of(truth)
        angle = rng.uniform(0, 2 * np.pi)
        step_mm = pixel_mm * np.array([np.sin(angle), np.cos(angle)])
        masks = {f"moved by {pixels:g} pixels": _draw(view, points + pixels * step_mm) for pixels in MOVED_PIXELS}
        masks["standing still"] = np.broadcast_to(truth[:1], truth.shape)
        for name, mask in masks.items():
            yield name, temporal_error_percent(areas_of(mask), areas, cyclic=True), mean_dice(mask, truth)


def _draw(view: ApicalView, points: np.ndarray) -> np.ndarray:
    return np.stack([view.labels(points, phase) for phase in view.heartbeat.phases()])


def main() -> None:
    """Print the means over all views."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels")
    parser.add_argument("--studies", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    scores: dict[str, list[tuple[float, ...]]] = {}
    for _ in tqdm(range(arguments.studies), desc="Drawing", unit="study"):
        for name, *values in measure(arguments.size, rng):
            scores.setdefault(name, []).append(tuple(values))
    print(f"{'':24} {'temporal error':>15} {'dice':>7}   ({len(STRUCTURES)} structures, {arguments.size} pixels)")
    for name, found in scores.items():
        error, dice = np.mean(found, axis=0)
        print(f"{name:24} {error:13.2f} % {dice:7.2f}")


if __name__ == "__main__":
    main()
