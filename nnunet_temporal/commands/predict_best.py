"""``nnunet_temporal predict_best``: new sequences by the models that were chosen, averaged and postprocessed."""

import argparse
import shutil
import sys
from pathlib import Path

from nnunetv2.postprocessing.remove_connected_components import load_postprocess_save
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.commands import predict
from nnunet_temporal.commands.find_best_configuration import BEST
from nnunet_temporal.commands.trained_model import model_folder, results_folder
from nnunet_temporal.datasets.image_io import find_niftis, nifti_name
from nnunet_temporal.datasets.problems import listed
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.best_choice import Choice, Postprocessing, read_choice
from nnunet_temporal.inference.confidence import remove_confidence
from nnunet_temporal.inference.ensemble import ensemble_folders
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.prediction_record import read_record, record_of, write_record
from nnunet_temporal.inference.study import PREDICTION_ARGUMENTS

HELP = "Predict sequences by what find_best_configuration chose: its models, their mean, its postprocessing."

_BEFORE, _MEAN = "before_postprocessing", "mean"
_FIRST_CHANNEL = "_0000.nii.gz"
_NAMED_AT_MOST = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb; those that ``predict`` has too are called as there."""
    add = parser.add_argument
    add("-i", type=Path, required=True, metavar="INPUT", help="folder of sequences CASE_0000.nii.gz, such as imagesTs")
    add(
        "-o",
        type=Path,
        required=True,
        metavar="OUTPUT",
        help=f"folder for the masks; {_BEFORE}, in it, keeps those of each model and their mean",
    )
    add("-d", required=True, metavar="DATASET", help="id or name of the dataset the models were trained on")
    add("-device", choices=("cuda", "cpu"), default="cuda", help="where to predict (default: %(default)s)")
    add("--tta", action="store_true", help="average mirrored copies, where the training mirrored")
    add("--continue_prediction", action="store_true", help="keep masks of single models that are there already")


def run(arguments: argparse.Namespace) -> int:
    """Predict by each model, average, postprocess.

    Returns:
        The exit code, 1 when any sequence failed; no masks are written then but those of single models.
    """
    results = results_folder(arguments.d)
    choice, postprocessing = read_choice(results / BEST)
    if not arguments.i.is_dir() or not any(arguments.i.glob(f"*{_FIRST_CHANNEL}")):
        raise InputError(
            f"-i {arguments.i}: found no sequences CASE_0000.nii.gz; make them of movies with 'nnunet_temporal split'"
        )
    before = arguments.o / _BEFORE
    members = [before / model for model in choice.models]
    _check_folders([arguments.o, before / _MEAN, *members], arguments.i)
    calls = [_call(model, folder, choice, arguments) for model, folder in zip(choice.models, members, strict=True)]
    for call in calls:
        TrainedModel.read(model_folder(call), call.f)  # or the second one would be missed after hours
    choice.check_checkpoints(results)
    _begin_or_continue(members, arguments, dataset=results.name, checkpoints=choice.checkpoints, tta=arguments.tta)
    codes = []
    for model, call in zip(choice.models, calls, strict=True):
        print(f"{model}, folds {' '.join(map(str, choice.folds))}")
        codes.append(predict.run(call))
    if any(codes):
        print(
            "No masks are written but those of single models. Mend or remove what could not be predicted, then call "
            "again with --continue_prediction",
            file=sys.stderr,
        )
        return 1
    averaged = members[0]
    if len(members) > 1:
        averaged = before / _MEAN
        ensemble_folders(members, averaged)
    masks = _postprocess(averaged, arguments.o, postprocessing)
    write_record(
        arguments.o,
        dataset=results.name,
        trainer=" and ".join(choice.models),
        folds=choice.folds,
        options={"device": arguments.device, "tta": arguments.tta, "postprocessing": True},
    )
    print(f"{len(masks)} masks in {arguments.o}")
    return 0


def _check_folders(folders: list[Path], sequences: Path) -> None:
    """Refuse masks of other sequences: they would be averaged and postprocessed as if they had just been predicted."""
    cases = {path.name.removesuffix(_FIRST_CHANNEL) for path in sequences.glob(f"*{_FIRST_CHANNEL}")}
    for folder in folders:
        if strangers := sorted({nifti_name(file).removesuffix(".npz") for file in _masks_in(folder)} - cases):
            raise InputError(
                f"{folder}: holds masks of sequences that {sequences} has not: {listed(strangers, _NAMED_AT_MOST)}; "
                "choose another -o, or remove them"
            )


def _masks_in(folder: Path) -> list[Path]:
    """List masks and probabilities; none where there is no folder."""
    return [*find_niftis(folder), *folder.glob("*.npz")] if folder.is_dir() else []


def _begin_or_continue(members: list[Path], arguments: argparse.Namespace, **facts: object) -> None:
    """Note what the masks of single models are predicted by. Those that are there are kept only if by the same."""
    before = arguments.o / _BEFORE
    masks = [file for folder in members for file in _masks_in(folder)]
    if not arguments.continue_prediction:
        for mask in masks:  # or a call that continues this one would find them
            mask.unlink()
    elif masks and read_record(before) != record_of(**facts):
        raise InputError(
            f"--continue_prediction: the masks in {before} are by other models, options or versions than those of "
            "this call; choose another -o, or predict anew without it"
        )
    before.mkdir(parents=True, exist_ok=True)
    write_record(before, **facts)


def _call(model: str, output: Path, choice: Choice, arguments: argparse.Namespace) -> argparse.Namespace:
    """Return the arguments of the verb ``predict`` for one model."""
    trainer, plans, configuration = model.split("__")
    words = ["-i", arguments.i, "-o", output, "-d", arguments.d, "-tr", trainer, "-p", plans, "-c", configuration]
    words += ["-device", arguments.device, *(["--tta"] if arguments.tta else [])]
    words += ["--continue_prediction"] if arguments.continue_prediction else []
    words += ["--save_probabilities"] if len(choice.models) > 1 else []
    parser = argparse.ArgumentParser()
    predict.add_arguments(parser)
    return parser.parse_args([*map(str, words), "-f", *map(str, choice.folds)])


def _postprocess(source: Path, output: Path, postprocessing: Postprocessing) -> list[Path]:
    """Write the masks in ``source`` into ``output``, postprocessed by nnU-Net, with all that later commands ask for."""
    reader_writer = PlansManager(str(source / "plans.json")).image_reader_writer_class()
    for name in ("dataset.json", "plans.json", PREDICTION_ARGUMENTS):
        with atomic_path(output / name) as temporary:
            shutil.copyfile(source / name, temporary)
    masks = []
    for file in tqdm(find_niftis(source), desc="Postprocessing", unit="file"):
        masks.append(output / file.name)
        remove_confidence(output, nifti_name(file))
        with atomic_path(masks[-1]) as temporary:
            load_postprocess_save(str(file), str(temporary), reader_writer, *postprocessing)
    return masks
