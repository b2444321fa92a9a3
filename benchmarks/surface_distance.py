"""How fast are the surface distances, in milliseconds per pair and against MONAI, and do the two agree?

Random pairs of a wavy ring are measured in the size that a heart has in such images: HD, HD95 and ASSD by three calls
of MONAI, the same three from one call of ours, and every metric of ours. All run on the same pairs in one process, on
one thread and in turns of ten pairs. Of each pair counts the quickest of three runs in processor time, of all pairs the
median, so that a busy machine moves the ratio little. MONAI must be installed (it is with ``[test]``).

    OMP_NUM_THREADS=1 python benchmarks/surface_distance.py --pairs 100
"""

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

from nnunet_temporal.metrics.surface import surface_distances

Pair = tuple[np.ndarray, np.ndarray]
Measure = Callable[[Pair, tuple[float, ...]], list[float]]

# Pairs that one implementation measures before it is the other one's turn.
TURN = 10
REPEATS = 3


@dataclass(frozen=True)
class Setting:
    """Shape and spacing of the images, and the outer diameter of the ring as a share of the in-plane shape."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    diameter: float


SETTINGS = {
    "echo 112x112": Setting((112, 112), (1.0, 1.0), 0.6),
    "echo 256x256": Setting((256, 256), (0.6, 0.8), 0.6),
    "cine slice 216x256": Setting((216, 256), (1.56, 1.56), 0.25),
    "cine stack 10x216x256": Setting((10, 216, 256), (10.0, 1.56, 1.56), 0.25),
}


def random_ring(generator: np.random.Generator, setting: Setting) -> np.ndarray:
    """Return a mask of an elliptic ring with a wavy wall; a stack has none in its outer slices."""
    y, x = (np.linspace(-1, 1, length) for length in setting.shape[-2:])
    y, x = y[:, None] - generator.uniform(-0.02, 0.02), x[None, :] - generator.uniform(-0.02, 0.02)
    axes = setting.diameter * generator.uniform(0.95, 1.05, size=2)
    waves = 0.03 * np.cos(5 * np.arctan2(y, x) + generator.uniform(0, 2 * np.pi))
    radius = np.hypot(y / axes[0], x / axes[1]) + waves
    mask = np.broadcast_to((radius < 1) & (radius > 0.65), setting.shape).copy()
    if mask.ndim == 3:
        mask[[0, -1]] = False
    return mask


def measure_with_ours(pair: Pair, spacing: tuple[float, ...]) -> list[float]:
    """Return HD, HD95 and ASSD by this package."""
    distances = surface_distances(*pair, spacing)
    return [distances.hausdorff(), distances.hausdorff95(), distances.assd()]


def measure_everything(pair: Pair, spacing: tuple[float, ...]) -> list[float]:
    """Return all surface metrics of this package."""
    distances = surface_distances(*pair, spacing)
    return [
        distances.hausdorff(),
        distances.hausdorff95(),
        distances.hausdorff95_pooled(),
        distances.assd(),
        distances.masd(),
        distances.nsd(2.0),
    ]


def measure_with_monai(pair: Pair, spacing: tuple[float, ...]) -> list[float]:
    """Return HD, HD95 and ASSD by three calls of MONAI."""
    prediction, reference = (torch.from_numpy(mask)[None, None] for mask in pair)
    values = [
        compute_hausdorff_distance(prediction, reference, True, spacing=spacing),
        compute_hausdorff_distance(prediction, reference, True, percentile=95, spacing=spacing),
        compute_average_surface_distance(prediction, reference, True, symmetric=True, spacing=spacing),
    ]
    return [float(value) for value in values]


MEASURES = {"ours": measure_with_ours, "all of ours": measure_everything, "MONAI": measure_with_monai}


def processor_ms(measure: Measure, pair: Pair, spacing: tuple[float, ...]) -> float:
    """Return the processor time of one call in ms."""
    start = time.process_time()
    measure(pair, spacing)
    return 1000 * (time.process_time() - start)


def compare(setting: Setting, pairs: int, seed: int) -> tuple[dict[str, float], float]:
    """Return the median ms per pair of each measure and the largest difference between ours and MONAI."""
    generator = np.random.default_rng(seed)
    times: dict[str, list[float]] = {name: [] for name in MEASURES}
    difference = 0.0
    for _ in range(0, pairs, TURN):
        masks = [(random_ring(generator, setting), random_ring(generator, setting)) for _ in range(TURN)]
        values: dict[str, list[list[float]]] = {name: [] for name in MEASURES}
        for name, measure in MEASURES.items():
            for pair in masks:
                values[name].append(measure(pair, setting.spacing))
                times[name].append(min(processor_ms(measure, pair, setting.spacing) for _ in range(REPEATS)))
        difference = max(difference, float(np.abs(np.subtract(values["ours"], values["MONAI"])).max()))
    return {name: float(np.median(measured)) for name, measured in times.items()}, difference


def main() -> None:
    """Print one line per setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100, help="pairs per setting, in tens (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random rings (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)  # MONAI calls one of its own functions in a deprecated way
    print(f"{'ms per pair':<24}{'ours':>8}{'all of ours':>14}{'MONAI':>9}{'MONAI/ours':>13}{'difference':>13}")
    for name, setting in SETTINGS.items():
        ms, difference = compare(setting, arguments.pairs, arguments.seed)
        ours, all_of_ours, monai = ms.values()
        print(f"{name:<24}{ours:>8.2f}{all_of_ours:>14.2f}{monai:>9.1f}{monai / ours:>13.1f}{difference:>13.0e}")


if __name__ == "__main__":
    main()
