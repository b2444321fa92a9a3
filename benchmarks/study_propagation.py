"""How well are whole studies segmented from one mask, and what is each part of the propagation worth?

Trains CSTM, and nnU-Net's 2D trainer beside it where ``--baseline`` says so, and segments the studies that they have
not seen: of a phantom, whose held-out studies have a truth of every frame, or of a dataset such as ACDC, whose folds
are trained one by one (``--folds``) and whose masks are of ED and ES. Seeds are true masks, of the middle slice at ED
unless a row says otherwise. Scores are

* ``Dice`` and ``HD95`` in mm of LV, MYO and RV in single slices, by region of the heart, with the seeds' own frames and
  without (``given frames left out``); the regions are thirds of the slices that show the heart at ED;
* ``3D``: Dice and HD95 of a study's volumes at one moment.

    nnunet_temporal phantom -d 801 --modality cine -n 24 --test 8 --frames-per-cycle 20-30 --seed 5
    nnunet_temporal plan_and_preprocess -d 801 -pl LightTemporalPlanner
    python benchmarks/study_propagation.py --dataset 801 --steps 1500 --ablations --output DIR

nnU-Net's three folders must be set. Interrupted, it resumes: every training and every result is a file in DIR.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name
from tqdm import tqdm
from training_runs import STOCK_TRAINER, build_trainer, trained_model

from nnunet_temporal.atomic import atomic_path, write_json
from nnunet_temporal.datasets.phantom.dataset import TRUTH_FOLDER
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.propagation.regions import REGIONS, find_apex, split_regions
from nnunet_temporal.inference.propagation.route import Place
from nnunet_temporal.inference.propagation.study_predictor import PropagationOptions, StudyPredictor
from nnunet_temporal.inference.propagation.study_start import StartOptions
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.metrics.bootstrap import compare_paired
from nnunet_temporal.metrics.overlap import dice
from nnunet_temporal.metrics.surface import surface_distances
from nnunet_temporal.sequences import Manifest, Study

TRAINER = "nnUNetTrainerCSTM"
PLANS = "nnUNetTemporalLightPlans"

Seeds = dict[Place, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A study to segment.

    Attributes:
        study: Its sequences.
        image: (T, Z, Y, X) grey values.
        truth: (T, Z, Y, X) label values.
        labelled: Moments that have a truth.
        spacing: (z, y, x) in mm.
        classes: Structures by name.
    """

    study: Study
    image: np.ndarray
    truth: np.ndarray
    labelled: tuple[int, ...]
    spacing: tuple[float, float, float]
    classes: dict[str, int]

    @property
    def ed(self) -> int:
        """The end-diastolic moment."""
        return self.study.sequences[0].ed or 0

    @property
    def regions(self) -> tuple[str, ...]:
        """Region of each slice, by the true areas at ED."""
        areas = (self.truth[self.ed] > 0).sum((1, 2)).tolist()
        return split_regions(areas, find_apex(areas)).names


def middle_slice(case: Case) -> Seeds:
    """Return the true mask at ED of the slice in the middle of those with all structures."""
    masks = case.truth[case.ed]
    whole = [z for z, mask in enumerate(masks) if all((mask == value).any() for value in case.classes.values())]
    z = whole[len(whole) // 2]
    return {Place(z, case.ed): masks[z]}


def volumes(case: Case, *, with_es: bool) -> Seeds:
    """Return the true masks of all slices at ED, or at ED and ES."""
    es = case.study.sequences[0].es
    frames = [case.ed, es] if with_es and es is not None else [case.ed]
    return {Place(z, t): case.truth[t, z] for t in frames for z in range(case.truth.shape[1])}


def nothing(case: Case) -> None:
    """Give no mask: the network begins with its own."""


@dataclass(frozen=True)
class Row:
    """One way to segment a study: seeds, and what differs from the usual propagation."""

    seeds: Callable[[Case], Seeds | None] = middle_slice
    options: dict[str, Any] = field(default_factory=dict)
    matching: dict[str, Any] = field(default_factory=dict)


ROWS = {
    "one slice": Row(),
    "ED volume": Row(partial(volumes, with_es=False)),
    "ED and ES volumes": Row(partial(volumes, with_es=True)),
    "automatic": Row(nothing),
    "automatic, all slices": Row(nothing, {"start": StartOptions(all_slices=True)}),
}
ABLATIONS = {
    "forwards": Row(options={"direction": "forward"}),
    "along time only": Row(options={"continuity": "time"}),
    "along slices only": Row(options={"continuity": "slices"}),
    **{f"T_max {number}": Row(options={"capacity": number}) for number in (2, 5, 10)},
    **{f"K {number}": Row(matching={"top_k": number}) for number in (1, 2, 6)},
    **{f"P {number}": Row(matching={"patch": number}) for number in (2, 6)},
    "coarse scale only": Row(matching={"stages": "coarse"}),
    "fine scale only": Row(matching={"stages": "fine"}),
}
PER_SLICE = "each slice on its own"


class Benchmark:
    """One dataset, its trainings and its results; the arguments are those of the command line."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        name = convert_id_to_dataset_name(arguments.dataset)
        self.raw, self.preprocessed = Path(str(nnUNet_raw)) / name, Path(str(nnUNet_preprocessed)) / name
        self.manifest = Manifest.load(self.raw)
        self.is_phantom = (self.raw / TRUTH_FOLDER).is_dir()
        self.folds: list[int | str] = list(range(arguments.folds)) if arguments.folds else ["all"]

    def model(self, name: str, fold: int | str) -> TrainedModel:
        """Return a trained model; train it unless its weights are there."""
        steps, device = self.arguments.steps, torch.device(self.arguments.device)
        file = self.arguments.output / f"{name}_fold{fold}_{steps}steps.pth"
        trainer = build_trainer(name, self.preprocessed / f"{PLANS}.json", steps, 0, device, fold=fold)
        if file.is_file():
            trainer.initialize()
            trainer.network.load_state_dict(torch.load(file, weights_only=True))
        else:
            trainer.run_training()
            with atomic_path(file) as temporary:
                torch.save(trainer.network.state_dict(), temporary)
        return trained_model(trainer)

    def cases(self, fold: int | str) -> list[Study]:
        """Return the studies that a fold has not seen."""
        if fold == "all":
            trained = set(Manifest.load(self.preprocessed))
            return self.manifest.subset([case for case in self.manifest if case not in trained]).studies()
        return self.manifest.subset(load_json(str(self.preprocessed / "splits_final.json"))[fold]["val"]).studies()

    def read(self, study: Study) -> Case:
        """Read a study."""
        labels = load_json(str(self.raw / "dataset.json"))["labels"]
        classes = {name: value for name, value in labels.items() if name not in ("background", "ignore")}
        group = "Ts" if (self.raw / "imagesTs" / f"{study.sequences[0].case}_0000.nii.gz").is_file() else "Tr"
        truth_folder = TRUTH_FOLDER if self.is_phantom else f"labels{group}"
        reader = SimpleITKIO()
        files = [str(self.raw / f"images{group}" / f"{s.case}_0000.nii.gz") for s in study.sequences]
        reads = [reader.read_images([file]) for file in files]
        masks = [reader.read_seg(str(self.raw / truth_folder / f"{s.case}.nii.gz"))[0][0] for s in study.sequences]
        truth = np.stack(masks, 1).astype(np.uint8)
        labelled = tuple(np.flatnonzero((truth != labels["ignore"]).any((1, 2, 3))).tolist())
        truth[truth == labels["ignore"]] = 0
        spacing = (study.sequences[0].slice_spacing_mm or 1.0, *reads[0][1]["spacing"][1:])
        return Case(study, np.stack([image[0] for image, _ in reads], 1), truth, labelled, spacing, classes)

    def result(self, name: str, fold: int | str) -> dict[str, dict]:
        """Return the scores of a fold's studies; segment them unless that is done."""
        file = self.arguments.output / f"{name.replace(' ', '_').replace(',', '')}_fold{fold}.json"
        if not file.is_file():
            trainer = STOCK_TRAINER if name == STOCK_TRAINER else TRAINER
            predict = self.predictor(name, self.model(trainer, fold))
            scores = {}
            for study in tqdm(self.cases(fold), desc=name, unit="study"):
                case = self.read(study)
                start = time.perf_counter()
                masks, seeds = predict(case)
                seconds = time.perf_counter() - start
                scores[study.name] = {**score(masks, case, seeds), "fps": masks.shape[0] * masks.shape[1] / seconds}
            write_json(scores, file)
        return json.loads(file.read_text())

    def predictor(self, name: str, model: TrainedModel) -> Callable[[Case], tuple[np.ndarray, Seeds]]:
        """Return what segments studies as a row of the table does."""
        device = self.arguments.device
        if name in (PER_SLICE, STOCK_TRAINER):
            frames = SequencePredictor(model, device)

            def alone(case: Case) -> tuple[np.ndarray, Seeds]:
                slices = range(case.image.shape[1])
                masks = [frames.predict(case.image[:, z], case.spacing[1:]).masks for z in slices]
                return np.stack(masks, 1), {}

            return alone
        row = {**ROWS, **ABLATIONS}[name]
        matching = dict(row.matching)
        if "stages" in matching:
            coarse, fine = model.networks[0].scales
            matching["stages"] = (coarse if matching["stages"] == "coarse" else fine,)
        studies = StudyPredictor(model, device, PropagationOptions(**row.options), **matching)

        def propagated(case: Case) -> tuple[np.ndarray, Seeds]:
            seeds, first = row.seeds(case), case.study.sequences[0]
            slices = {z: studies.prepare(case.image[None, :, z], case.spacing[1:]) for z in range(case.image.shape[1])}
            return studies.segment(slices, seeds, ed=first.ed, cyclic=first.cyclic).masks, seeds or {}

        return propagated


def score(masks: np.ndarray, case: Case, seeds: Seeds) -> dict[str, float]:
    """Score masks (T, Z, Y, X); a structure that neither masks nor truth have in a slice does not count there."""
    overlaps: dict[str, list[float]] = {}
    for t in case.labelled:
        for name, value in case.classes.items():
            found, true = masks[t] == value, case.truth[t] == value
            overlaps.setdefault("3D Dice", []).append(100 * dice(found, true))
            overlaps.setdefault(f"3D Dice {name}", []).append(100 * dice(found, true))
            overlaps.setdefault("3D HD95", []).append(_hd95(found, true, case.spacing))
            for z, region in enumerate(case.regions):
                place, one = Place(z, t), 100 * dice(found[z], true[z])
                overlaps.setdefault(f"Dice {region}", []).append(one)
                overlaps.setdefault(f"HD95 {region}", []).append(_hd95(found[z], true[z], case.spacing[1:]))
                if place not in seeds:
                    overlaps.setdefault(f"Dice {region}, given frames left out", []).append(one)
    return {name: float(np.nanmean(values)) for name, values in overlaps.items() if not np.isnan(values).all()}


def _hd95(found: np.ndarray, true: np.ndarray, spacing: tuple[float, ...]) -> float:
    return surface_distances(found, true, spacing).hausdorff95() if found.any() and true.any() else np.nan


COLUMNS = (
    "3D Dice", "3D HD95", *(f"Dice {region}" for region in REGIONS),
    *(f"Dice {region}, given frames left out" for region in REGIONS), *(f"HD95 {region}" for region in REGIONS), "fps",
)  # fmt: skip


def print_table(results: dict[str, dict[str, dict]]) -> None:
    """Print means over the studies, and how they compare with slices on their own, paired by study."""
    for column in COLUMNS:
        print(f"\n{column}: mean +- SD of the studies; minus '{PER_SLICE}' [95 % interval]")
        baseline = {name: scores[column] for name, scores in results[PER_SLICE].items() if column in scores}
        for name, studies in results.items():
            values = {study: scores[column] for study, scores in studies.items() if column in scores}
            shared = [study for study in values if study in baseline]
            difference = ""
            if name != PER_SLICE and len(shared) > 1:
                ours, theirs = (np.array([each[study] for study in shared]) for each in (values, baseline))
                compared = compare_paired(ours, theirs, shared).difference
                difference = f"{compared.mean:+7.2f} [{compared.lower:+.2f}, {compared.upper:+.2f}]"
            found = list(values.values()) or [np.nan]
            print(f"  {name:28}{np.mean(found):8.2f} +- {np.std(found):5.2f}  {difference}")


def main() -> None:
    """Run or resume the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=int, required=True)
    parser.add_argument("--folds", type=int, default=0, help="0 trains on all and segments the held-out studies")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--baseline", action="store_true", help="train nnU-Net's 2D trainer as well")
    parser.add_argument("--ablations", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    benchmark = Benchmark(arguments)
    names = [*ROWS, PER_SLICE, *(ABLATIONS if arguments.ablations else ())]
    names += [STOCK_TRAINER] if arguments.baseline else []
    print_table(
        {
            name: {study: scores for fold in benchmark.folds for study, scores in benchmark.result(name, fold).items()}
            for name in names
        }
    )


if __name__ == "__main__":
    main()
