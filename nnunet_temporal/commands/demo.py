"""``nnunet_temporal demo``: real heart movies through nnU-Net's own commands, from raw files to masks and volumes."""

import argparse
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnunet_temporal.atomic import write_json
from nnunet_temporal.commands.env import VARIABLE, assignment, detect_shell, ext_trainer_value
from nnunet_temporal.commands.report import ReportRequest, make_report
from nnunet_temporal.commands.steps import CommandFailedError, Step, run_steps
from nnunet_temporal.datasets import sunnybrook
from nnunet_temporal.demo_data import demo_data_folder
from nnunet_temporal.errors import InputError
from nnunet_temporal.report.study_files import read_expert_masks, read_study_result
from nnunet_temporal.report.study_result import StudyResult
from nnunet_temporal.report.study_score import StudyScore, mean_mask, mean_mask_dice, score_study
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest

HELP = "train, predict and score on five embedded cine MRI studies: about 10 minutes on two cores"

HELD_OUT = "SC-HF-I-1"
TRAINER = "nnUNetTrainerGDKVM_demo"
PLANNER = "LightTemporalPlanner"
PLANS = "nnUNetTemporalLightPlans"
CONFIGURATION = "2dt"
# One fold per training study: four of the five embedded studies.
FOLDS = (0, 1, 2, 3)

MARKER = "made_by_nnunet_temporal_demo.txt"
_MARKER_TEXT = "This folder was made by 'nnunet_temporal demo'. Its option --overwrite empties and fills it again.\n"
SUMMARY, PAGE = "summary.json", "report.html"


@dataclass(frozen=True)
class DemoFolders:
    """Where the demo keeps what; nothing lies outside ``output``, least of all in the user's own nnU-Net folders."""

    output: Path

    @property
    def nnunet(self) -> dict[str, Path]:
        """The folders nnU-Net asks for, by the variable that names them."""
        return {name: self.output / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}

    @property
    def sequences(self) -> Path:
        """The held-out study, split into one sequence per slice."""
        return self.output / "sequences"

    @property
    def sequence_masks(self) -> Path:
        """The predicted masks of these sequences."""
        return self.output / "sequence_masks"

    @property
    def masks(self) -> Path:
        """The predicted masks merged to 4D."""
        return self.output / "masks"

    @property
    def movies(self) -> Path:
        """The movie with the predicted and the expert's outlines."""
        return self.output / "movies"

    @property
    def logs(self) -> Path:
        """The output of each command."""
        return self.output / "logs"

    def all_folders(self) -> list[Path]:
        """Return every folder the demo makes below ``output``."""
        return [*self.nnunet.values(), self.sequences, self.sequence_masks, self.masks, self.movies, self.logs]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "--output", type=Path, default=Path("nnunet_temporal_demo"), metavar="DIR",
        help="folder for everything the demo writes (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier demo in DIR")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument("--trainer", default=TRAINER, metavar="NAME", help="default: %(default)s, which is very short")
    parser.add_argument("--dataset-id", type=int, default=901, metavar="ID", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo from end to end.

    Returns:
        The exit code: 0, or 1 when one of the commands failed.

    Raises:
        InputError: If the output folder is in use, or a needed program is not installed.
    """
    start = time.monotonic()
    folders = DemoFolders(arguments.output.absolute())
    prepare_output(folders, overwrite=arguments.overwrite)
    print("Four real cine MRI studies train a small model, briefly; a fifth one tests it. For research use only.\n")
    print_environment(folders)
    try:
        seconds_per_step = run_steps(
            demo_steps(folders, arguments.dataset_id, arguments.trainer, arguments.device),
            demo_environment(folders, arguments.device),
            folders.logs,
        )
    except CommandFailedError as error:
        print(f"nnunet_temporal: {error}", file=sys.stderr)
        return 1
    result, trivial_dice = read_results(folders, arguments.dataset_id)
    score = score_study(result)
    raw = raw_folder(folders, arguments.dataset_id)
    make_report(
        ReportRequest(
            folders.sequences, folders.masks, raw / "labelsTs", folders.output / PAGE, raw / "dataset.json",
            raw / MANIFEST_NAME, movies=folders.movies,
        )
    )  # fmt: skip
    seconds = round(time.monotonic() - start, 1)
    summary = summarise(score, trivial_dice, arguments.trainer, arguments.device)
    write_json({**summary, "seconds": seconds, "seconds_per_step": seconds_per_step}, folders.output / SUMMARY)
    print_score(score, trivial_dice, seconds, folders.output)
    return 0


def prepare_output(folders: DemoFolders, *, overwrite: bool) -> None:
    """Make the folders of the demo, after clearing those of an earlier one if that is wanted.

    Args:
        folders: The folders to make.
        overwrite: Whether results of an earlier demo may be removed; only folders and files the demo makes are.

    Raises:
        InputError: If the output folder is a file, is in use by something else, or holds an earlier demo and
            ``overwrite`` is false.
    """
    output = folders.output
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: expected a folder, found a file; choose another name")
    if output.is_dir() and any(output.iterdir()):
        if not (output / MARKER).is_file():
            raise InputError(
                f"--output {output}: expected an empty or new folder, found files that no demo made; choose another one"
            )
        if not overwrite:
            raise InputError(
                f"--output {output}: found the results of an earlier demo; add --overwrite to replace them, or choose "
                f"another folder"
            )
        for folder in folders.all_folders():
            shutil.rmtree(folder, ignore_errors=True)
        for name in (SUMMARY, PAGE):
            (output / name).unlink(missing_ok=True)
    for folder in folders.all_folders():
        folder.mkdir(parents=True)
    (output / MARKER).write_text(_MARKER_TEXT, encoding="utf-8")


def demo_steps(folders: DemoFolders, dataset_id: int, trainer: str, device: str) -> list[Step]:
    """Return the commands of the demo in order; all but the ones for the data are nnU-Net's own.

    Args:
        folders: Where everything lies.
        dataset_id: nnU-Net's number for the dataset.
        trainer: Name of the trainer.
        device: ``cpu`` or ``cuda``.

    Returns:
        The commands, to be run in :func:`demo_environment`.
    """
    data, dataset, folds = demo_data_folder(), str(dataset_id), [str(fold) for fold in FOLDS]
    image = str(data / f"{HELD_OUT}_cine.nii.gz")
    sequences, sequence_masks = str(folders.sequences), str(folders.sequence_masks)
    model = ("-tr", trainer, "-p", PLANS)
    ours = "nnunet_temporal"
    return [
        Step("convert", (ours, "convert", "sunnybrook", "-i", str(data), "-d", dataset, "--held-out", HELD_OUT)),
        Step(
            "plan",
            (ours, "plan_and_preprocess", "-d", dataset, "-pl", PLANNER, "-c", CONFIGURATION, "-npfp", "2", "-np", "2"),
        ),
        *(
            Step(f"train fold {fold}", ("nnUNetv2_train", dataset, CONFIGURATION, fold, *model, "-device", device))
            for fold in folds
        ),
        # Named as in labelsTs, so that the masks can be evaluated against it.
        Step("split", (ours, "split", "-i", image, "-o", sequences, "--drop-suffix", "_cine")),
        Step(
            "predict",
            ("nnUNetv2_predict", "-i", sequences, "-o", sequence_masks, "-d", dataset, "-c", CONFIGURATION, *model,
             "-f", *folds, "-npp", "1", "-nps", "1", "--disable_tta", "-device", device),
        ),
        Step("merge", (ours, "merge", "-i", sequence_masks, "-s", sequences, "-o", str(folders.masks))),
    ]  # fmt: skip


def demo_environment(folders: DemoFolders, device: str) -> dict[str, str]:
    """Return the environment variables of the demo's commands: the present ones, with nnU-Net sent to our folders."""
    environment = dict(os.environ)
    environment.update({name: str(folder) for name, folder in folders.nnunet.items()})
    environment[VARIABLE] = ext_trainer_value()
    # A training this short does not earn back what compiling the network costs.
    environment["nnUNet_compile"] = "f"
    # nnU-Net's "Epoch" lines have to reach the log when they are printed, not at the end.
    environment["PYTHONUNBUFFERED"] = "1"
    if device == "cpu":
        environment.update({"nnUNet_n_proc_DA": "2", "nnUNet_def_n_proc": "2"})
        environment.setdefault("OMP_NUM_THREADS", "2")
    return environment


def raw_folder(folders: DemoFolders, dataset_id: int) -> Path:
    """Return the raw dataset that the demo has made."""
    return next(folders.nnunet["nnUNet_raw"].glob(f"Dataset{dataset_id:03d}_*"))


def read_results(folders: DemoFolders, dataset_id: int) -> tuple[StudyResult, float]:
    """Read the merged masks of the held-out study, and score the trivial answer on the same slices.

    Args:
        folders: Where the demo's commands have written.
        dataset_id: nnU-Net's number for the dataset.

    Returns:
        The held-out study with predicted and expert masks, and the mean Dice of the training studies' mean mask.
    """
    raw = raw_folder(folders, dataset_id)
    studies = {study.name: study for study in Manifest.load(raw).studies()}
    data = demo_data_folder()
    values = {"label": sunnybrook.LABELS["LV"], "ignore_label": sunnybrook.LABELS["ignore"]}
    result = read_study_result(
        studies[HELD_OUT],
        data / f"{HELD_OUT}_cine.nii.gz",
        data / f"{HELD_OUT}_gt_lv.nii.gz",
        next(folders.masks.glob(f"{HELD_OUT}*.nii.gz")),
        **values,
    )
    training = [study for name, study in studies.items() if name != HELD_OUT]
    masks = [read_expert_masks(study, data / f"{study.name}_gt_lv.nii.gz", **values) for study in training]
    return result, mean_mask_dice(result, mean_mask(masks))


def summarise(score: StudyScore, trivial_dice: float, trainer: str, device: str) -> dict[str, Any]:
    """Return the content of ``summary.json``, without the times; figures that do not exist are None."""
    figures = {"lv_dice": score.mean_dice, "mean_mask_dice": trivial_dice, **asdict(score)}
    return {
        "study": HELD_OUT,
        **{name: value if math.isfinite(value) else None for name, value in figures.items()},
        "trainer": trainer,
        "plans": PLANS,
        "configuration": CONFIGURATION,
        "folds": list(FOLDS),
        "device": device,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("nnunet_temporal", "nnunetv2", "torch")},
        },
    }


def print_environment(folders: DemoFolders) -> None:
    """Print the lines that let the user repeat each of the demo's commands by hand."""
    shell = detect_shell()
    for name, folder in folders.nnunet.items():
        print(assignment(shell, name, str(folder)))
    print(assignment(shell, VARIABLE, ext_trainer_value()) + "\n", flush=True)


def print_score(score: StudyScore, trivial_dice: float, seconds: float, output: Path) -> None:
    """Print the figures as a table, and where the pictures are."""
    rows: Sequence[tuple[str, str, str]] = (
        ("LV Dice, mean of ED and ES", f"{score.mean_dice:.3f}", ""),
        ("  the mean mask as answer", f"{trivial_dice:.3f}", ""),
        ("EDV [ml]", f"{score.edv_ml:.1f}", f"{score.edv_ml_reference:.1f}"),
        ("ESV [ml]", f"{score.esv_ml:.1f}", f"{score.esv_ml_reference:.1f}"),
        ("ejection fraction [%]", f"{score.ef_percent:.1f}", f"{score.ef_percent_reference:.1f}"),
        ("flicker, area roughness [%]", f"{score.area_roughness_percent:.2f}", ""),
        ("flicker, pixels [%]", f"{score.pixel_flicker_percent:.2f}", ""),
    )
    print(f"\n{f'Study {HELD_OUT}, never seen in training':<40}{'model':>9}{'expert':>9}")
    for name, model, expert in rows:
        print(f"{name:<40}{model:>9}{expert:>9}")
    print(f"\nDone in {seconds / 60:.1f} minutes. Look at:")
    for name, content in ((PAGE, "report"), ("movies", "movie"), (SUMMARY, "all figures"), ("masks", "4D masks")):
        print(f"  {content:<13} {output / name}")
    print("Research use only. One test study and minutes of training show that it works, not how well it can.")
