"""What does a temporal method cost beside nnU-Net's 2D network? Time, arithmetic, parameters and memory of prediction.

Every method's network is built from the same plans, default and light, and segments sequences of 256 x 256 frames; the
stock 2D network takes the same frames one by one. Times are of whole sequences (``clip``, as nnU-Net predicts them) and
frame by frame with a state (``live``). The arms take turns, round by round, and each round is divided by the 2D
network's time in it: what else the machine does slows all of them, so that the ratio counts, not the milliseconds.

    python benchmarks/cost.py --dataset 96 --threads 2 --output DIR

nnU-Net's three folders must be set; a small dataset is made in them where it is missing. The memory is what a process
of its own per arm adds to what it held before its first prediction (Linux only).
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm
from training_runs import STOCK_TRAINER, run_command

from nnunet_temporal.atomic import write_json
from nnunet_temporal.plans import TEMPORAL_CONFIGURATION
from nnunet_temporal.trainers.variants import METHODS

NAME = "PhantomCost"
PLANNERS = {
    "default": ("TemporalPlanner", "nnUNetTemporalPlans"),
    "light": ("LightTemporalPlanner", "nnUNetTemporalLightPlans"),
}
SIZE, CLASSES = 256, 4
TIMED_FRAMES = 10
MEMORY_FRAMES = (5, 10, 20, 40)
CLIP, LIVE = "clip", "live"

Row = dict[str, float]
Prediction = Callable[[nn.Module, Tensor], None]


def make_plans(dataset: int) -> dict[str, Path]:
    """Draw a small dataset of large frames and plan it, unless that was done before; return the plans' files."""
    folder = f"Dataset{dataset:03d}_{NAME}"
    if not (Path(str(nnUNet_raw)) / folder).is_dir():
        words = ["phantom", "-d", str(dataset), "--name", NAME, "--modality", "cine", "-n", "2", "--size", str(SIZE)]
        run_command([*words, "--frames-per-cycle", "8"])
    files = {}
    for width, (planner, plans) in PLANNERS.items():
        files[width] = Path(str(nnUNet_preprocessed)) / folder / f"{plans}.json"
        if not files[width].is_file():
            run_command(["plan_and_preprocess", "-d", str(dataset), "-pl", planner, "-npfp", "1", "--no_pp"])
    return files


def build_network(name: str, plans_file: Path) -> nn.Module:
    """Build a trainer's network as nnU-Net does for prediction, with random weights."""
    torch.manual_seed(0)
    plans = PlansManager(load_json(str(plans_file)))
    configuration = plans.get_configuration("2d" if name == STOCK_TRAINER else TEMPORAL_CONFIGURATION)
    trainer = recursive_find_trainer_class_by_name(name)
    network = trainer.build_network_architecture(plans, configuration, 1, CLASSES, False)
    # The counter of arithmetic trips over parameters that want a gradient where none is recorded.
    return network.eval().requires_grad_(False)


def frames_of(number: int) -> Tensor:
    """Draw frames (1, 1, T, Y, X)."""
    return torch.randn(1, 1, number, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def predict_alone(network: nn.Module, frames: Tensor) -> None:
    """Segment frame by frame with a 2D network, keeping all logits."""
    torch.stack([network(frame) for frame in frames.unbind(2)], 2)


def predict_clip(network: nn.Module, frames: Tensor) -> None:
    """Segment a whole sequence."""
    network(frames)


def predict_live(network: nn.Module, frames: Tensor) -> None:
    """Segment frame by frame with a state, keeping no logits."""
    state = None
    for frame in frames.split(1, 2):
        _, state = network.forward_chunk(frame, state)  # type: ignore[operator]  # all temporal networks have it


def predictions_of(name: str) -> dict[str, Prediction]:
    """Return the ways in which a trainer's network predicts."""
    return {CLIP: predict_alone} if name == STOCK_TRAINER else {CLIP: predict_clip, LIVE: predict_live}


def count(name: str, plans_file: Path) -> Row:
    """Count parameters in millions, and GFLOP per frame (a multiplication and an addition are two FLOP)."""
    network = build_network(name, plans_file)
    row: Row = {"Mparameters": sum(p.numel() for p in network.parameters()) / 1e6}
    for way, predict in predictions_of(name).items():
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            predict(network, frames_of(TIMED_FRAMES))
        row[f"GFLOP {way}"] = counter.get_total_flops() / 1e9 / TIMED_FRAMES
    return row


def time_arms(names: list[str], plans_file: Path, rounds: int) -> dict[str, Row]:
    """Time all arms in turn, ``rounds`` times after one to warm up: ms per frame, and the ratio to 2D, both medians."""
    networks = {name: build_network(name, plans_file) for name in names}
    arms = [(name, way, predict) for name in names for way, predict in predictions_of(name).items()]
    frames, seconds = frames_of(TIMED_FRAMES), np.zeros((rounds + 1, len(arms)))
    with torch.inference_mode():
        for number in tqdm(range(rounds + 1), desc=f"Timing {plans_file.stem}", unit="round"):
            for arm, (name, _, predict) in enumerate(arms):
                start = time.perf_counter()
                predict(networks[name], frames)
                seconds[number, arm] = time.perf_counter() - start
    seconds = seconds[1:]
    stock = seconds[:, [arm for arm, (name, *_) in enumerate(arms) if name == STOCK_TRAINER]]
    rows: dict[str, Row] = {name: {} for name in names}
    for (name, way, _), own, ratios in zip(arms, seconds.T, (seconds / stock).T, strict=True):
        rows[name] |= {
            f"ms {way}": 1000 * float(np.median(own)) / TIMED_FRAMES,
            f"x 2D {way}": float(np.median(ratios)),
        }
    return rows


def measure_memory(name: str, plans_file: Path, way: str, threads: int) -> Row:
    """Measure in a process of its own the peak memory of prediction, in MB beyond what it held before the first one."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peaks = pool.apply(_peaks_mb, (name, plans_file, way, threads))
    return {f"MB {way} T={number}": peak for number, peak in zip(MEMORY_FRAMES, peaks, strict=True)}


def _peaks_mb(name: str, plans_file: Path, way: str, threads: int) -> list[float]:
    torch.set_num_threads(threads)
    network, sequences = build_network(name, plans_file), [frames_of(number) for number in MEMORY_FRAMES]
    before, peaks = _status_mb("VmRSS"), []
    for frames in sequences:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
        with torch.inference_mode():
            predictions_of(name)[way](network, frames)
        peaks.append(_status_mb("VmHWM") - before)
    return peaks


def _status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024 / 1e6


def print_table(title: str, rows: dict[str, Row]) -> None:
    """Print one line per arm; an arm without a column has no such way to predict."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    print(f"\n{title} plans, {SIZE} x {SIZE}, {TIMED_FRAMES} frames")
    print(" ".join([f"{'':28}", *(f"{column:>13}" for column in columns)]))
    for name, row in rows.items():
        print(" ".join([f"{name:28}", *(f"{row[c]:13.2f}" if c in row else f"{'-':>13}" for c in columns)]))


def main() -> None:
    """Measure everything in one run and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=int, required=True, help="id of the dataset to make or to reuse")
    parser.add_argument("--trainers", nargs="+", default=[method.__name__ for method in METHODS])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    names = [STOCK_TRAINER, *arguments.trainers]
    results: dict[str, dict[str, Row]] = {}
    for width, plans_file in make_plans(arguments.dataset).items():
        rows = time_arms(names, plans_file, arguments.rounds)
        for name in tqdm(names, desc="Memory", unit="method"):
            rows[name] |= count(name, plans_file)
            for way in predictions_of(name):
                rows[name] |= measure_memory(name, plans_file, way, arguments.threads)
        results[width] = rows
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_json(results, arguments.output / "cost.json")
    for width, rows in json.loads((arguments.output / "cost.json").read_text()).items():
        print_table(width, rows)


if __name__ == "__main__":
    main()
