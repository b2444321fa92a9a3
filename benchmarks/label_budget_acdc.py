"""What do frames bring that nobody labelled, on real cine MRI? Of twelve patients three are labelled, three held out.

They change places four times, so that each is tested once. The stock 2D trainer and the supervised temporal one learn
from the three labelled patients alone, the semi-supervised one from nine; the plans are those of the nine, so that
every step sees as many labelled frames. Only ED and ES have masks: Dice and the error of the ejection fraction (in
points) are known, but the temporal error is not, and restlessness stands in for it, roughness of the areas and flicker
of the pixels. A mask that stands still has none of these, but shows in the ejection fraction. Each network predicts
twice, the second time with its logits smoothed along time.

    python benchmarks/label_budget_acdc.py --acdc FOLDER --dataset 700 --seeds 3 --iterations 1000 --output DIR

nnU-Net's three folders must be set. Eight datasets are made in them where they are missing, from the id ``--dataset``
on. Interrupted, it resumes: every finished run is a JSON file in DIR.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from equal_time import predict_study, score_study
from label_budget import TWINS
from nnunetv2.paths import nnUNet_raw
from sequence_scores import Scores, print_table
from shared_plans import Dataset, prepare
from tqdm import tqdm
from training_runs import STOCK_TRAINER, Predictor, build_trainer, predictor_of, smoothed, smoothing_predictor_of

from nnunet_temporal.atomic import write_json
from nnunet_temporal.datasets import acdc
from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset
from nnunet_temporal.datasets.study_source import StudySource
from nnunet_temporal.sequences import Manifest

SEMI_SUPERVISED = "nnUNetTrainerTemporalSemi"
SUPERVISED = TWINS[SEMI_SUPERVISED]
BASELINES = {SUPERVISED: STOCK_TRAINER, SEMI_SUPERVISED: SUPERVISED}
ARMS = (STOCK_TRAINER, SUPERVISED, SEMI_SUPERVISED)
ROTATIONS = 4
COLUMNS = ("dice", "ef_error", "roughness", "flicker")


def make_datasets(studies: Sequence[StudySource], first_id: int, rotation: int) -> tuple[Dataset, Dataset]:
    """Write, plan and preprocess what is missing of a rotation: the dataset of all patients, and without unlabelled."""
    test, labelled = (studies[(rotation + shift) % ROTATIONS :: ROTATIONS] for shift in (0, 1))
    known = {study.study for study in (*test, *labelled)}
    unlabelled = [replace(study, load_labels=None) for study in studies if study.study not in known]
    mixed = Dataset(first_id + rotation, f"ACDCBudget{rotation}mixed")
    alone = Dataset(first_id + ROTATIONS + rotation, f"ACDCBudget{rotation}alone")
    for dataset, sources in ((mixed, [*test, *labelled, *unlabelled]), (alone, [*test, *labelled])):
        if not dataset.raw.is_dir():
            info = DatasetInfo(dataset.dataset_id, dataset.name, acdc.LABELS, acdc.CHANNEL)
            write_raw_dataset(sources, info, Path(str(nnUNet_raw)), held_out=[study.study for study in test])
    prepare((mixed, alone), mixed)
    return mixed, alone


def run(name: str, dataset: Dataset, steps: int, seed: int, device: torch.device) -> dict[str, Scores]:
    """Train once and score the held-out patients, as predicted and smoothed."""
    trainer = build_trainer(name, dataset.plans_file, steps, seed, device)
    trainer.run_training()
    return {
        name: score_held_out(predictor_of(trainer), name, dataset),
        smoothed(name): score_held_out(smoothing_predictor_of(trainer), name, dataset),
    }


def score_held_out(predictor: Predictor, name: str, dataset: Dataset) -> Scores:
    """Predict and score the held-out patients."""
    held_out = [path.name.removesuffix(".nii.gz") for path in (dataset.raw / "labelsTs").glob("*.nii.gz")]
    labels = load_json(str(dataset.raw / "dataset.json"))["labels"]
    scores: Scores = {column: {} for column in COLUMNS}
    for study in tqdm(Manifest.load(dataset.raw).subset(sorted(held_out)).studies(), desc=name, unit="study"):
        masks = predict_study(predictor, study, dataset.raw / "imagesTs")
        values = score_study(masks, study, dataset.raw / "labelsTs", labels)
        for column in COLUMNS:
            scores[column][study.name] = values[column]
    return scores


def main() -> None:
    """Run or resume the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--acdc", type=Path, required=True, help="folder of patients, such as database/training")
    parser.add_argument("--dataset", type=int, required=True, help="id of the first of eight datasets")
    parser.add_argument("--rotations", type=int, default=ROTATIONS, help="run the first ones only")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    studies = acdc.find_studies(arguments.acdc)
    results: dict[str, list[Scores]] = {arm: [] for name in ARMS for arm in (name, smoothed(name))}
    datasets = [make_datasets(studies, arguments.dataset, rotation) for rotation in range(arguments.rotations)]
    for seed in range(arguments.seeds):
        for name in ARMS:
            scores: dict[str, Scores] = {arm: {column: {} for column in COLUMNS} for arm in (name, smoothed(name))}
            for rotation, (mixed, alone) in enumerate(datasets):
                path = arguments.output / f"{name}_rotation{rotation}_{arguments.iterations}steps_seed{seed}.json"
                if not path.is_file():
                    dataset = mixed if name == SEMI_SUPERVISED else alone
                    found = run(name, dataset, arguments.iterations, seed, torch.device(arguments.device))
                    write_json(found, path)
                for arm, columns in json.loads(path.read_text()).items():
                    for column, values in columns.items():
                        scores[arm][column] |= values
            for arm, found in scores.items():
                results[arm].append(found)
    print_table(results, BASELINES | {smoothed(name): name for name in ARMS}, COLUMNS)


if __name__ == "__main__":
    main()
