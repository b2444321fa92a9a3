"""``nnunet_temporal predict_best``: new sequences by the models that were chosen, averaged and postprocessed."""

import argparse
import pickle
import shutil
from pathlib import Path

from nnunetv2.postprocessing.remove_connected_components import load_postprocess_save
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.commands import predict
from nnunet_temporal.commands.find_best_configuration import BEST
from nnunet_temporal.commands.trained_model import results_folder
from nnunet_temporal.datasets.image_io import find_niftis
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.best_choice import Choice, read_choice
from nnunet_temporal.inference.ensemble import ensemble_folders
from nnunet_temporal.inference.prediction_record import write_record
from nnunet_temporal.inference.study import PREDICTION_ARGUMENTS

HELP = "Predict sequences by what find_best_configuration chose: its models, their mean, its postprocessing."

_BEFORE = "before_postprocessing"


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


def run(arguments: argparse.Namespace) -> int:
    """Predict by each model, average, postprocess.

    Returns:
        The exit code, 1 when any sequence failed; there are no masks then but those of single models.
    """
    choice, postprocessing = read_choice(results_folder(arguments.d) / BEST)
    if not arguments.i.is_dir() or not any(arguments.i.glob("*_0000.nii.gz")):
        raise InputError(
            f"-i {arguments.i}: found no sequences CASE_0000.nii.gz; make them of movies with 'nnunet_temporal split'"
        )
    before = arguments.o / _BEFORE
    members = [before / model for model in choice.models]
    for model, folder in zip(choice.models, members, strict=True):
        print(f"{model}, folds {' '.join(map(str, choice.folds))}")
        if code := _predict(model, folder, choice, arguments):
            return code
    averaged = members[0]
    if len(members) > 1:
        averaged = before / "mean"
        ensemble_folders(members, averaged)
    masks = _postprocess(averaged, arguments.o, postprocessing)
    write_record(
        arguments.o,
        dataset=results_folder(arguments.d).name,
        trainer=" and ".join(choice.models),
        folds=choice.folds,
        options={"device": arguments.device, "tta": arguments.tta, "postprocessing": True},
    )
    print(f"{len(masks)} masks in {arguments.o}")
    return 0


def _predict(model: str, output: Path, choice: Choice, arguments: argparse.Namespace) -> int:
    """Run the verb ``predict``; return its exit code."""
    trainer, plans, configuration = model.split("__")
    words = ["-i", arguments.i, "-o", output, "-d", arguments.d, "-tr", trainer, "-p", plans, "-c", configuration]
    words += ["-device", arguments.device, *(["--tta"] if arguments.tta else [])]
    words += ["--save_probabilities"] if len(choice.models) > 1 else []
    parser = argparse.ArgumentParser()
    predict.add_arguments(parser)
    return predict.run(parser.parse_args([*map(str, words), "-f", *map(str, choice.folds)]))


def _postprocess(source: Path, output: Path, postprocessing: Path) -> list[Path]:
    """Write the masks in ``source`` into ``output``, postprocessed by nnU-Net, with all that later commands ask for."""
    # As nnU-Net stores it: functions, and the arguments of each.
    functions, options = pickle.loads(postprocessing.read_bytes())
    reader_writer = PlansManager(str(source / "plans.json")).image_reader_writer_class()
    for name in ("dataset.json", "plans.json", PREDICTION_ARGUMENTS):
        with atomic_path(output / name) as temporary:
            shutil.copyfile(source / name, temporary)
    masks = []
    for file in tqdm(find_niftis(source), desc="Postprocessing", unit="file"):
        masks.append(output / file.name)
        with atomic_path(masks[-1]) as temporary:
            load_postprocess_save(str(file), str(temporary), reader_writer, functions, options)
    return masks
