"""The flags of ``nnunet_temporal predict`` that propagate masks through whole studies."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.prediction_jobs import Job, MovieJob
from nnunet_temporal.inference.propagation.regions import REGIONS
from nnunet_temporal.inference.propagation.study_job import StudyJob
from nnunet_temporal.inference.propagation.study_predictor import PropagationOptions, StudyPredictor
from nnunet_temporal.inference.propagation.study_start import StartOptions
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest

AUTOMATIC = "auto"
_CYCLIC = {AUTOMATIC: None, "yes": True, "no": False}
_ED = "ed"
_HOW = (
    "seed_model", "seed_slices", "t0", "direction", "cyclic", "tmax", "topk", "patch", "scales", "continuity", "apex",
    "regions", "min_confidence",
)  # fmt: skip


def add_propagation_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --seed, which propagates masks, and all that says how."""
    group = parser.add_argument_group("4D studies from one mask (models of nnUNetTrainerCSTM)")
    add = group.add_argument
    add(
        "--seed",
        metavar="MASK",
        help="propagate masks through all frames and slices of each movie, from the given ones: a NIfTI file with the "
        "mask of any frames, or of one moment (--t0), or a folder of files named like the movies; or 'auto', from a "
        "mask that the model makes itself",
    )
    add("--seed_model", "--seed-model", type=_folder, metavar="FOLDER", help="make the first mask by another model")
    add("--seed_slices", choices=("middle", "all"), help="slices of the automatic mask (default: middle)")
    add("--t0", type=_frame, metavar="ed|FRAME", help="moment of the first mask, from 0 (default: ED, or as found)")
    add("--direction", choices=("forward", "both"), help="along time (default: both)")
    add("--cyclic", choices=tuple(_CYCLIC), help="whether a movie is one whole beat (default: as found)")
    add("--tmax", type=int, metavar="N", help="frames that a frame recalls at most (default: 3)")
    add("--topk", type=int, metavar="K", help="patches that a patch reads from (default: as planned)")
    add("--patch", type=int, metavar="P", help="side of a patch on the coarse feature map (default: as planned)")
    add("--scales", type=_numbers, metavar="S,S", help="encoder stages to read the memory at (default: both)")
    add("--continuity", choices=("both", "time", "slices"), help="what frames are linked along")
    add("--apex", choices=("auto", "first", "last"), help="slice at the apex (default: as found)")
    add("--regions", type=int, nargs=3, metavar="N", help=f"numbers of slices of {', '.join(REGIONS)}; needs --apex")
    add("--min_confidence", type=float, metavar="C", help="remember only frames that are at least as sure (default: 0)")


def study_jobs(arguments: argparse.Namespace, jobs: Sequence[Job]) -> list[Job]:
    """Return jobs that propagate masks through the movies of the given ones.

    Raises:
        InputError: They are sequences, or the seeds do not exist.
    """
    if not isinstance(jobs[0], MovieJob):
        raise InputError(
            f"--seed: found sequences such as {jobs[0].files[0].name} in {arguments.i}, expected movies "
            "(x, y, z, t) or (x, y, t); a study cannot be propagated slice by slice"
        )
    seeds = None if arguments.seed == AUTOMATIC else Path(arguments.seed)
    if seeds is not None and (arguments.seed_model is not None or arguments.seed_slices is not None):
        raise InputError("--seed_model and --seed_slices are for '--seed auto': the masks to begin with are given")
    if seeds is not None and not seeds.exists():
        raise InputError(f"--seed {seeds}: does not exist; name a mask, a folder of masks, or 'auto'")
    if seeds is not None and seeds.is_file() and len(jobs) > 1:
        raise InputError(f"--seed {seeds}: is one mask, but there are {len(jobs)} movies; name a folder of masks")
    folder = arguments.i if arguments.i.is_dir() else arguments.i.parent
    manifest = Manifest.load(folder) if (folder / MANIFEST_NAME).is_file() else None
    return [StudyJob.of(job, manifest, seeds, _given_frame(arguments)) for job in jobs if isinstance(job, MovieJob)]


def check_propagation(arguments: argparse.Namespace) -> None:
    """Refuse flags that need --seed without it, and flags that it does not go with.

    Raises:
        InputError: There is such a flag.
    """
    if arguments.seed is None:
        if given := [name for name in _HOW if getattr(arguments, name) is not None]:
            raise InputError(f"--{given[0]}: says how masks are propagated, which only --seed does; name it, too")
        return
    for flag in ("both_ways", "compile", "smooth"):
        if getattr(arguments, flag):
            raise InputError(f"--{flag}: not with --seed; see --direction for the way along time")


def study_predictor(arguments: argparse.Namespace, model: TrainedModel, device: str) -> StudyPredictor:
    """Build the predictor that the flags ask for.

    Raises:
        InputError: Flags do not fit each other or the model.
    """
    chosen = {
        "direction": arguments.direction,
        "capacity": arguments.tmax,
        "continuity": arguments.continuity,
        "least_confidence": arguments.min_confidence,
    }
    options = PropagationOptions(
        StartOptions(
            frame=_given_frame(arguments),
            all_slices=arguments.seed_slices == "all",
            apex_at=None if arguments.apex == AUTOMATIC else arguments.apex,
            regions=None if arguments.regions is None else tuple(arguments.regions),
        ),
        cyclic=_CYCLIC[arguments.cyclic or AUTOMATIC],
        **{name: value for name, value in chosen.items() if value is not None},
    )
    other = None
    if arguments.seed_model is not None:
        other = SequencePredictor.from_model_folder(arguments.seed_model, device=device)
    return StudyPredictor(
        model,
        device,
        options,
        seed_model=other,
        mirror=arguments.tta,
        patch=arguments.patch,
        top_k=arguments.topk,
        stages=arguments.scales,
    )


def _folder(text: str) -> Path:
    return Path(text).absolute()  # workers may run elsewhere


def _given_frame(arguments: argparse.Namespace) -> int | None:
    return None if arguments.t0 == _ED else arguments.t0


def _frame(text: str) -> int | str:
    return text if text == _ED else int(text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))
