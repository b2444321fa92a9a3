"""Estimate the heart beat's length on sequences that tell it and on sequences that do not, and count the answers.

python benchmarks/cycle_length.py --seed 2 --acdc DIR --sunnybrook DIR --output cycle_length.json

Without real data it measures phantoms only. The thresholds were chosen on other phantoms and on these real data.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_temporal.atomic import write_json
from nnunet_temporal.datasets import acdc, sunnybrook
from nnunet_temporal.datasets.heart_cycle import estimate_cycle
from nnunet_temporal.datasets.phantom.dataset import MODALITIES
from nnunet_temporal.datasets.phantom.heartbeat import Heartbeat
from nnunet_temporal.datasets.study_source import StudySource

SIZE = 64
FRAMES_PER_CYCLE = (12.0, 80.0)
JITTER = 0.15
NEAR = 0.1
# Studies per group; a cine study has about ten slices, an echo study two views.
N_STUDIES = {"cine": 12, "echo": 40}
SLICE_STEP = 2
# Group, frames, and the true frames per cycle, None where the images cannot tell.
Sample = tuple[str, np.ndarray, float | None]


def piece_of_beat(rng: np.random.Generator) -> Heartbeat:
    """Draw 0.4 to 0.7 beats from anywhere in the beat."""
    usual = Heartbeat.draw(rng, FRAMES_PER_CYCLE, (1, 1))
    beats, start = rng.uniform(0.4, 0.7), rng.uniform(-1, 0)
    return Heartbeat(usual.frames_per_cycle, beats, usual.ef_percent, usual.systole_share, usual.cycle_s, start)


def contraction(rng: np.random.Generator) -> Heartbeat:
    """Draw the part of a beat from ED to ES."""
    usual = Heartbeat.draw(rng, FRAMES_PER_CYCLE, (1, 1))
    beats = usual.systole_share + 1 / usual.frames_per_cycle
    return Heartbeat(usual.frames_per_cycle, beats, usual.ef_percent, usual.systole_share, usual.cycle_s)


HEARTBEATS = {
    "one beat": lambda rng: Heartbeat.draw(rng, FRAMES_PER_CYCLE, (1, 1)),
    "1.5-4 beats": lambda rng: Heartbeat.draw(rng, FRAMES_PER_CYCLE, (1.5, 4), JITTER),
    "1.05-1.45 beats": lambda rng: Heartbeat.draw(rng, FRAMES_PER_CYCLE, (1.05, 1.45), JITTER),
    "0.4-0.7 beats": piece_of_beat,
    "ED to ES": contraction,
}
HAS_NO_ANSWER = ("0.4-0.7 beats", "ED to ES")


def draw_phantoms(seed: int) -> Iterator[Sample]:
    """Draw the phantoms of every group."""
    for modality, n_studies in N_STUDIES.items():
        for number, (group, draw) in enumerate(HEARTBEATS.items()):
            for study in range(n_studies):
                rng = np.random.default_rng((seed, number, study))
                heartbeat = draw(rng)
                truth = None if group in HAS_NO_ANSWER else heartbeat.true_frames_per_cycle
                sequences = MODALITIES[modality].draw("benchmark", heartbeat, SIZE, rng).sequences
                for sequence in sequences[:: SLICE_STEP if modality == "cine" else 1]:
                    yield f"{modality}, {group}", sequence.image, truth
                    if group == "one beat":
                        yield from spoil(f"{modality}", sequence.image, rng)


def spoil(name: str, beat: np.ndarray, rng: np.random.Generator) -> Iterator[Sample]:
    """Make sequences without a beat of one closed beat (T, Y, X)."""
    n_frames = int(rng.integers(8, 60))
    still = beat[:1].repeat(n_frames, axis=0)
    noise = rng.normal(0, rng.uniform(0.02, 0.3) * beat.std(), still.shape)
    yield f"{name}, still with noise", still + noise, None
    yield f"{name}, wash-in", still * np.linspace(1, rng.uniform(1.1, 2), n_frames)[:, None, None] + noise, None
    shift = np.arange(n_frames)[:, None, None] * rng.uniform(0.1, 0.5)
    rows = np.arange(beat.shape[2]) + shift
    whole = rows.astype(int)
    panned = [
        np.take_along_axis(still, np.broadcast_to((whole + k) % beat.shape[2], still.shape), axis=2) for k in (0, 1)
    ]
    yield f"{name}, panning", panned[0] + (rows - whole) * (panned[1] - panned[0]) + noise, None
    # A phase that wanders back and forth, smoothly and without a period.
    steps = np.convolve(rng.normal(0, 1, n_frames + 4), np.ones(5) / 5, "valid")
    phases = np.rint(np.cumsum(steps) * len(beat) / 20).astype(int) % len(beat)
    yield f"{name}, wandering", beat[phases] + noise, None


def cut_beats(name: str, studies: list[StudySource], rng: np.random.Generator) -> Iterator[Sample]:
    """Read real studies of one beat (T, Z, Y, X), each slice a sequence; cut them to pieces and repeat them."""
    for study in studies:
        image = study.load_image()
        n_frames, n_slices = image.shape[:2]
        for z in range(n_slices):
            beat = image[:, z]
            yield f"{name}, one beat", beat, float(n_frames)
            for group, low, high in (("0.4-0.7 beats", 0.4, 0.7), ("2-3 beats", 2.0, 3.0)):
                frames = np.arange(round(n_frames * rng.uniform(low, high))) + rng.integers(n_frames)
                pixels = beat[frames % n_frames]
                # Beats never repeat to the last bit.
                pixels = pixels + rng.normal(0, 0.05 * beat.std(), pixels.shape)
                yield f"{name}, {group}", pixels, n_frames if group == "2-3 beats" else None
            if study.ed is not None and study.es is not None:
                length = (study.es - study.ed) % n_frames
                yield f"{name}, ED to ES", beat[(study.ed + np.arange(length + 1)) % n_frames], None


def summarise(answers: list[tuple[float | None, float | None]]) -> dict[str, float | None]:
    """Count pairs of truth and answer: near the truth, no answer, and neither."""
    given = [(truth, answer) for truth, answer in answers if answer is not None]
    near = [truth is not None and abs(answer / truth - 1) <= NEAR for truth, answer in given]
    n, tells = len(answers), answers[0][0] is not None
    return {
        "n": n,
        "within_10_percent": sum(near) / n if tells else None,
        "no_answer": 1 - len(given) / n,
        "wrong_answer": (len(given) - sum(near)) / n,
    }


def main() -> None:
    """Measure every group; print a table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--acdc", type=Path, help="folder of ACDC patients")
    parser.add_argument("--sunnybrook", type=Path, help="folder of Sunnybrook studies as NIfTI")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    samples = [draw_phantoms(arguments.seed)]
    for name, folder, dataset in (("ACDC", arguments.acdc, acdc), ("Sunnybrook", arguments.sunnybrook, sunnybrook)):
        if folder is not None:
            samples.append(cut_beats(name, dataset.find_studies(folder), np.random.default_rng(arguments.seed)))
    answers: dict[str, list[tuple[float | None, float | None]]] = defaultdict(list)
    seconds = 0.0
    for group, frames, truth in tqdm((sample for part in samples for sample in part), unit="sequence"):
        start = time.perf_counter()
        cycle = estimate_cycle(frames)
        seconds += time.perf_counter() - start
        answers[group].append((truth, cycle.frames_per_cycle))
    table = {group: summarise(pairs) for group, pairs in answers.items()}
    print(f"{'':32}{'n':>6}{'within 10 %':>14}{'no answer':>12}{'wrong':>9}")
    for group, row in table.items():
        near = "" if row["within_10_percent"] is None else f"{row['within_10_percent']:.1%}"
        print(f"{group:32}{row['n']:6d}{near:>14}{row['no_answer']:12.1%}{row['wrong_answer']:9.1%}")
    print(f"{1000 * seconds / sum(map(len, answers.values())):.0f} ms per sequence")
    write_json({"seed": arguments.seed, "groups": table}, arguments.output)


if __name__ == "__main__":
    main()
