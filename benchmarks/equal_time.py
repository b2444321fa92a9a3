"""Does a temporal trainer beat nnU-Net's 2D trainer on the same plans, labelled frames per step and computing time?

Both arms train on all training cases of a dataset (fold "all") and predict its held-out studies through nnU-Net's own
predictor, without test-time augmentation. First the time of a step is measured, the arms in turn; each arm then gets as
many steps as fit into the budget, so that a busy machine changes how long the benchmark takes, not its result.

    python benchmarks/equal_time.py --dataset 27 --plans nnUNetTemporalLightPlans --minutes 10 --seeds 3 --output DIR

nnU-Net's three folders must be set and the dataset planned; ``--trainers`` chooses the arms, ``nnUNetTrainer`` being
the 2D baseline. Interrupted, it resumes: every finished run is a JSON file in DIR. Needs held-out studies with labels.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name
from training_runs import Predictor, build_trainer, predict_case, predictor_of

from nnunet_temporal.atomic import write_json
from nnunet_temporal.metrics.clinical import ejection_fraction_percent, volume_curve_ml
from nnunet_temporal.metrics.overlap import dice
from nnunet_temporal.metrics.temporal import area_roughness_percent, pixel_flicker_percent
from nnunet_temporal.sequences import Manifest, Study


def measure_step(names: list[str], plans_file: Path, device: torch.device, repeats: int = 5) -> dict[str, float]:
    """Seconds per step of each arm, data loading included: the fastest of several rounds in which the arms take turns.

    The fastest, because whatever else a machine does only ever adds time.
    """
    rounds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            trainer = build_trainer(name, plans_file, 1, 0, device)
            trainer.on_train_start()
            trainer.on_train_epoch_start()
            for _ in range(6):  # empties the queue the workers filled while nothing was trained
                trainer.train_step(next(trainer.dataloader_train))
            start = time.perf_counter()
            for _ in range(20):
                trainer.train_step(next(trainer.dataloader_train))
            rounds[name].append((time.perf_counter() - start) / 20)
            trainer.on_train_end()
    return {name: min(values) for name, values in rounds.items()}


def predict_study(predictor: Predictor, study: Study, images: Path) -> np.ndarray:
    """Predict a study's sequences: (T, Z, Y, X) label map."""
    return np.stack([predict_case(predictor, sequence.case, images) for sequence in study.sequences], 1)


def score_study(masks: np.ndarray, study: Study, labels_folder: Path, labels: dict[str, int]) -> dict[str, float]:
    """Score (T, Z, Y, X) masks against the study's labelled frames: 3D Dice per phase, EF of the LV, flicker."""
    reads = [SimpleITKIO().read_seg(str(labels_folder / f"{s.case}.nii.gz")) for s in study.sequences]
    reference = np.stack([read[0][0] for read in reads], 1)
    spacing = (study.sequences[0].slice_spacing_mm or 1.0, *reads[0][1]["spacing"][1:])
    ignore = labels["ignore"]
    phases = [t for t in range(len(reference)) if (reference[t] != ignore).any()]
    valid = reference != ignore
    classes = [name for name in labels if name not in ("background", "ignore")]
    scores = {
        f"dice_{name}": float(
            np.nanmean([dice(masks[t] == labels[name], reference[t] == labels[name], valid[t]) for t in phases])
        )
        for name in classes
    }
    lv = volume_curve_ml((masks == labels["LV"]) & valid, spacing)[phases]
    truth = volume_curve_ml((reference == labels["LV"]) & valid, spacing)[phases]
    found = ejection_fraction_percent(lv[truth.argmax()], lv[truth.argmin()])
    areas = np.stack([(masks == labels[name]).sum((2, 3)) for name in classes], 2).reshape(len(masks), -1)
    return {
        **scores,
        "dice": float(np.mean(list(scores.values()))),
        "ef_error": abs(found - ejection_fraction_percent(truth.max(), truth.min())),
        "roughness": area_roughness_percent(areas, cyclic=True),
        "flicker": pixel_flicker_percent(masks > 0, cyclic=True),
    }


def run_arm(name: str, plans_file: Path, raw: Path, steps: int, seed: int, device: torch.device) -> dict[str, float]:
    """Train one arm and average its scores over the held-out studies."""
    trainer = build_trainer(name, plans_file, steps, seed, device)
    start = time.perf_counter()
    trainer.run_training()
    seconds = time.perf_counter() - start
    predictor = predictor_of(trainer)
    held_out = [path.name.removesuffix(".nii.gz") for path in (raw / "labelsTs").glob("*.nii.gz")]
    studies = Manifest.load(raw).subset(sorted(held_out)).studies()
    labels = load_json(str(raw / "dataset.json"))["labels"]
    start = time.perf_counter()
    masks = [predict_study(predictor, study, raw / "imagesTs") for study in studies]
    prediction_seconds = time.perf_counter() - start
    scores = [score_study(mask, study, raw / "labelsTs", labels) for mask, study in zip(masks, studies, strict=True)]
    means = {key: float(np.mean([score[key] for score in scores])) for key in scores[0]}
    return {**means, "steps": steps, "train_seconds": seconds, "predict_seconds": prediction_seconds}


def main() -> None:
    """Run or resume the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=int, required=True)
    parser.add_argument("--plans", default="nnUNetTemporalLightPlans")
    parser.add_argument("--trainers", nargs="+", default=["nnUNetTrainer", "nnUNetTrainerGDKVM"])
    parser.add_argument("--minutes", type=float, default=10.0, help="training time per run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    dataset = convert_id_to_dataset_name(arguments.dataset)
    plans_file = Path(str(nnUNet_preprocessed)) / dataset / f"{arguments.plans}.json"
    raw, device = Path(str(nnUNet_raw)) / dataset, torch.device(arguments.device)
    timing = arguments.output / "seconds_per_step.json"
    if not timing.is_file():
        write_json(measure_step(arguments.trainers, plans_file, device), timing)
    seconds_per_step = json.loads(timing.read_text())
    results: dict[str, list[dict[str, float]]] = {name: [] for name in arguments.trainers}
    for seed in range(arguments.seeds):
        for name in arguments.trainers:
            path = arguments.output / f"{name}_seed{seed}.json"
            if not path.is_file():
                steps = round(arguments.minutes * 60 / seconds_per_step[name])
                write_json(run_arm(name, plans_file, raw, steps, seed, device), path)
            results[name].append(json.loads(path.read_text()))
    print_table(results, seconds_per_step)


def print_table(results: dict[str, list[dict[str, float]]], seconds_per_step: dict[str, float]) -> None:
    """Print mean and standard deviation over the seeds, per trainer."""
    columns = ["dice", "ef_error", "roughness", "flicker"]
    print(f"{'trainer':36} {'s/step':>7} {'steps':>6} " + " ".join(f"{column:>17}" for column in columns))
    for name, runs in results.items():
        values = [[run[column] for run in runs] for column in columns]
        cells = " ".join(f"{np.mean(v):8.3f} +- {np.std(v):5.3f}" for v in values)
        print(f"{name:36} {seconds_per_step[name]:7.3f} {runs[0]['steps']:6d} {cells}")


if __name__ == "__main__":
    main()
