"""What whole studies cost: time against plain prediction slice by slice, and memory by the number of slices.

Both segment the same study of noise with the same untrained CSTM on the planned patch, in turn; the ratio of the best
rounds counts. Memory is what a process of its own holds at most while it segments, beyond what it held before with
model, image and masks.

    python benchmarks/study_speed.py --dataset 801 --slices 10 --frames 30 --rounds 3

nnU-Net's folders must be set and the dataset planned (``nnUNetTemporalLightPlans``).
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name
from training_runs import build_trainer, trained_model

from nnunet_temporal.inference.propagation.route import Place
from nnunet_temporal.inference.propagation.study_predictor import PropagationOptions, StudyPredictor
from nnunet_temporal.inference.propagation.study_start import StartOptions
from nnunet_temporal.inference.sequence_predictor import SequencePredictor

PIXEL_MM = (1.0, 1.0)


def predictors(arguments: argparse.Namespace, image: np.ndarray) -> dict[str, Callable[[], object]]:
    """Return the ways to segment a study (T, Z, Y, X)."""
    folder = Path(str(nnUNet_preprocessed)) / convert_id_to_dataset_name(arguments.dataset)
    device = torch.device(arguments.device)
    trainer = build_trainer("nnUNetTrainerCSTM", folder / "nnUNetTemporalLightPlans.json", 1, 0, device)
    trainer.initialize()
    model = trained_model(trainer)
    pixel_mm = tuple(model.configuration.spacing)
    z = image.shape[1]
    seed = {Place(z // 2, 0): np.ones(image.shape[2:], np.uint8)}
    third = z // 3
    start = StartOptions(apex_at="last", regions=(third, z - 2 * third, third))
    studies = {
        way: StudyPredictor(model, device, PropagationOptions(start, direction=way, cyclic=True))
        for way in ("forward", "both")
    }
    frames = SequencePredictor(model, device)
    return {
        "each slice on its own": lambda: [frames.predict(image[:, n], pixel_mm) for n in range(z)],
        **{f"one mask, {way}": lambda p=p: p.predict(image, pixel_mm, seed) for way, p in studies.items()},
    }


def study(slices: int, frames: int, size: int) -> np.ndarray:
    """Return noise (T, Z, Y, X)."""
    return np.random.default_rng(0).normal(100, 30, (frames, slices, size, size)).astype(np.float32)


def peak_mb(arguments: argparse.Namespace, slices: int) -> float:
    """Return what segmenting a study takes at most, measured in a process of its own."""
    words = ["--dataset", str(arguments.dataset), "--frames", str(arguments.frames), "--size", str(arguments.size)]
    command = [sys.executable, __file__, *words, "--slices", str(slices), "--device", arguments.device, "--peak"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def print_peak(arguments: argparse.Namespace) -> None:
    """Segment two slices, so that everything is loaded, then the study, and print by how much memory grew."""
    warm_up = predictors(arguments, study(2, arguments.frames, arguments.size))
    warm_up["one mask, both"]()
    image = study(arguments.slices, arguments.frames, arguments.size)
    segment = predictors(arguments, image)["one mask, both"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    segment()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=int, required=True)
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(arguments)
        return
    ways = predictors(arguments, study(arguments.slices, arguments.frames, arguments.size))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, segment in ways.items():
            start = time.perf_counter()
            segment()
            seconds[name].append(time.perf_counter() - start)
    fastest = {name: min(values) for name, values in seconds.items()}
    plain = fastest["each slice on its own"]
    total = arguments.slices * arguments.frames
    for name, value in fastest.items():
        print(f"{name:24}{value:8.2f} s  {total / value:7.1f} frames/s  x {value / plain:.2f}")
    for slices in (arguments.slices, 2 * arguments.slices, 4 * arguments.slices):
        print(f"{slices:3} slices: {peak_mb(arguments, slices):7.1f} MB more at most")


if __name__ == "__main__":
    main()
