"""What the container does: segment the movie that a platform such as grand-challenge gives it.

Each ``.mha`` or ``.nii.gz`` file, (x, y, z, t) or (x, y, t), in ``/input/images/NAME`` is answered by a mask of the
same kind and name in ``/output/images/NAME``; ``/output/results.json`` lists them. The exit code is 1 when a movie
could not be segmented, 2 when none was tried.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from nnunet_temporal.atomic import atomic_path, write_json
from nnunet_temporal.commands.container import trained_folds
from nnunet_temporal.commands.env import VARIABLE, ext_trainer_value
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.batch import predict_jobs
from nnunet_temporal.inference.pipeline import StageClock
from nnunet_temporal.inference.prediction_jobs import find_jobs
from nnunet_temporal.inference.sequence_predictor import SequencePredictor

ENDINGS = (".mha", ".nii.gz")


def main(argv: list[str] | None = None) -> int:
    """Segment all movies; return the exit code."""
    arguments = _parse(argv)
    try:
        movies = find_movies(arguments.input / "images" / arguments.input_socket)
        masks = arguments.output / "images" / arguments.output_socket
        masks.mkdir(parents=True, exist_ok=True)
        os.environ[VARIABLE] = ext_trainer_value()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        predictor = SequencePredictor.from_model_folder(arguments.model, trained_folds(arguments.model), device)
        results = [segment(predictor, movie, masks) for movie in movies]
        write_json(results, arguments.output / "results.json")
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    problems = [result["problem"] for result in results if result["problem"]]
    print(*problems, sep="\n", end="", file=sys.stderr)
    print(f"{len(results) - len(problems)} of {len(results)} movies segmented on {device}, masks in {masks}")
    return 1 if problems else 0


def find_movies(folder: Path) -> list[Path]:
    """Return the movies in the folder of a socket; raises InputError when there is none, or another file."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    movies = [file for file in files if file.name.endswith(ENDINGS)]
    if not movies or len(movies) < len(files):
        found = ", ".join(file.name for file in files) or "nothing"
        others = ", ".join(sorted(other.name for other in folder.parent.glob("*"))) or "nothing"
        raise InputError(
            f"{folder}: found {found}, expected only movies {' or '.join(ENDINGS)}; {folder.parent} holds {others}"
        )
    return movies


def segment(predictor: SequencePredictor, movie: Path, folder: Path) -> dict[str, Any]:
    """Write the masks of a movie into ``folder``; return what ``results.json`` says about it."""
    with tempfile.TemporaryDirectory() as work:
        try:
            (job,) = find_jobs(movie, Path(work), ".nii.gz")
            (outcome,) = predict_jobs(predictor, [job], with_probabilities=False, clock=StageClock())
            if outcome.problem is not None:
                raise InputError(outcome.problem)
            # The first one is of the movie's own kind.
            with atomic_path(folder / movie.name) as temporary:
                shutil.copyfile(job.outputs[0], temporary)
        except InputError as error:
            return {"movie": movie.name, "frames": 0, "remarks": [], "problem": str(error)}
        return {"movie": movie.name, "frames": outcome.frames, "remarks": job.remarks(), "problem": None}


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, default=Path("/input"))
    parser.add_argument("--output", type=Path, default=Path("/output"))
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parent / "model")
    parser.add_argument("--input-socket", default="@INPUT@")
    parser.add_argument("--output-socket", default="@OUTPUT@")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
