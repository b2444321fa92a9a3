"""How long does evaluating take, in seconds of processor time per sequence?

Studies of two apical views are drawn: a ventricle with its wall and an atrium that beat, labelled in every frame, and a
prediction with a wavy outline that trembles. The command runs on them in one process, reading and writing included;
only its start, the imports, is taken off. Printed is also what 1,000 sequences would take on two processors that have
nothing else to do.

    OMP_NUM_THREADS=1 python benchmarks/evaluate_speed.py --studies 20
"""

import argparse
import contextlib
import io
import tempfile
import time
from pathlib import Path

import numpy as np

from nnunet_temporal.atomic import write_json
from nnunet_temporal.cli import main
from nnunet_temporal.datasets.image_io import SEQUENCE_ENDING, write_sequence
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, Sequence, case_name

LABELS = {"background": 0, "LV": 1, "MYO": 2, "LA": 3, "ignore": 4}
VIEWS = ("2CH", "4CH")
N_FRAMES = 30
SIZE = 112
PIXEL_MM = (1.2, 1.2)


def draw_movie(rng: np.random.Generator, tremble: float) -> np.ndarray:
    """Return label values (T, Y, X) of one beat; ``tremble`` is the noise of size and outline, 0 for the truth."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE * 0.5
    movie = np.zeros((N_FRAMES, SIZE, SIZE), np.uint8)
    for frame in range(N_FRAMES):
        systole = 0.5 - 0.5 * np.cos(2 * np.pi * frame / N_FRAMES)
        height = 44 * (1 - 0.12 * systole) * (1 + tremble * rng.normal())
        width = 20 * (1 - 0.25 * systole) * (1 + tremble * rng.normal())
        waves = tremble * np.cos(4 * np.arctan2(y, x) + rng.uniform(0, 2 * np.pi))
        radius = np.hypot((y - 16) / height, x / width) + waves
        above = y < 16
        movie[frame][above & (radius < 1.35)] = LABELS["MYO"]
        movie[frame][above & (radius < 1)] = LABELS["LV"]
        movie[frame][~above & (np.hypot((y - 16) / 24, x / (width + 2)) + waves < 1)] = LABELS["LA"]
    return movie


def write_studies(root: Path, n_studies: int, seed: int) -> None:
    """Write truth, prediction and manifest."""
    rng = np.random.default_rng(seed)
    sequences = {}
    for name in ("truth", "prediction"):
        (root / name).mkdir()
    for study in range(n_studies):
        for view in VIEWS:
            case = case_name(f"study{study:04d}", view=view)
            for folder, tremble in (("truth", 0.0), ("prediction", 0.03)):
                write_sequence(draw_movie(rng, tremble), PIXEL_MM, root / folder / f"{case}{SEQUENCE_ENDING}")
            sequences[case] = Sequence(
                case, f"study{study:04d}", N_FRAMES, (0, 15), view=view, ed=0, es=15, frame_interval_s=0.03
            )
    Manifest(sequences).write(root / MANIFEST_NAME)
    write_json({"labels": LABELS, "file_ending": SEQUENCE_ENDING}, root / "dataset.json")


def run() -> None:
    """Draw, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20, help="studies of two views (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_studies(root, arguments.studies, arguments.seed)
        command = ["evaluate", "-ref", str(root / "truth"), "-pred", str(root / "prediction"), "-np", "1"]
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
            main([*command[:1], "--help"])  # imports, which the clock below must not see
        start, wall = time.process_time(), time.perf_counter()
        main(command)
        seconds, wall = time.process_time() - start, time.perf_counter() - wall
    n_sequences = arguments.studies * len(VIEWS)
    print(f"{n_sequences} sequences of {N_FRAMES} frames of {SIZE}x{SIZE}: {seconds:.2f} s of processor time")
    print(f"{1000 * seconds / n_sequences:.0f} ms per sequence ({1000 * wall / n_sequences:.0f} ms on the clock)")
    print(f"1,000 sequences on 2 free processors: {1000 * seconds / n_sequences / 2:.0f} s")


if __name__ == "__main__":
    run()
