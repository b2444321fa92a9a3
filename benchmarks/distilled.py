"""What distillation loses and saves: the folds of a cross-validation against one network that learned from them.

Draws the echo phantoms of ``dropout.py``, trains folds of a temporal trainer, and then its distilled twin on all
training studies. Every frame of the held-out studies is scored against its truth. Beside the folds, their ensemble and
the student there are

* one network with the mean of the folds' weights, which costs as little as the student and no training;
* the same start and the same further steps as the student's, on labels alone: what the student has over it is the
  teachers' doing;
* with ``--ablations``, students with one choice changed.

No test-time augmentation; differences are paired by study.

    python benchmarks/distilled.py --dataset 95 --folds 5 --output DIR

nnU-Net's folders for raw and preprocessed data must be set; the dataset is made in them where it is missing, models go
to DIR. Interrupted, it resumes: every finished run is a JSON file in DIR, which is for one setting.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from dropout import NAME, PLANS, ROWS, difference, held_out, make_dataset, rows_of, score_frames, truth_of
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from tqdm import tqdm
from training_runs import EPOCHS, predict_case, predictor_of, set_length

from nnunet_temporal.atomic import write_json
from nnunet_temporal.plans import TEMPORAL_CONFIGURATION

STUDENT, ENSEMBLE = "distilled", "ensemble"
# What differs from the trainer's own choices, by attribute.
STUDENTS: dict[str, dict[str, float]] = {
    STUDENT: {},
    "labels alone": {"distillation_weight": 0.0, "any_frame_share": 0.0},
}
ABLATIONS: dict[str, dict[str, float]] = {
    "labelled frames only": {"any_frame_share": 0.0},
    "learning rate 0.01": {"initial_lr": 1e-2},
}
AVERAGED = "averaged weights"


class Benchmark:
    """One setting: a trainer, its folds, and how long they and the students train.

    Attributes:
        arguments: The command line.
        folder: Name of the dataset's folder.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.folder = f"Dataset{arguments.dataset:03d}_{NAME}"
        self.raw = Path(str(nnUNet_raw)) / self.folder
        self.plans_file = Path(str(nnUNet_preprocessed)) / self.folder / f"{PLANS}.json"
        self.studies = held_out(self.raw)

    def train_fold(self, fold: int) -> dict:
        """Train one fold, whose checkpoint becomes a teacher, and score it."""
        trainer = self.trainer(self.arguments.trainer, fold, self.arguments.steps)
        return self.train(trainer, f"fold {fold}")

    def train_student(self, name: str) -> dict:
        """Train a student on all training studies, without a checkpoint, and score it."""
        trainer = self.trainer(f"{self.arguments.trainer}Distilled", "all", self.arguments.student_steps)
        trainer.disable_checkpointing = True
        for attribute, value in {**STUDENTS, **ABLATIONS}[name].items():
            setattr(trainer, attribute, value)
        return self.train(trainer, name)

    def trainer(self, name: str, fold: int | str, steps: int) -> nnUNetTrainer:
        """Instantiate a trainer as ``nnUNetv2_train`` does, of ``steps`` steps."""
        plans = {**load_json(str(self.plans_file)), "continue_training": False}
        dataset_json = load_json(str(self.plans_file.parent / "dataset.json"))
        device = torch.device(self.arguments.device)
        trainer = recursive_find_trainer_class_by_name(name)(plans, TEMPORAL_CONFIGURATION, fold, dataset_json, device)
        set_length(trainer, steps)
        trainer.save_every = EPOCHS
        return trainer

    def train(self, trainer: nnUNetTrainer, name: str) -> dict:
        """Train and score."""
        start = time.perf_counter()
        trainer.run_training()
        seconds = time.perf_counter() - start
        return {**self.score(predictor_of(trainer), name), "train_seconds": seconds}

    def of_all_folds(self, name: str) -> dict:
        """Score the folds together: their mean logits, as stock prediction does, or their mean weights."""
        folder = Path(os.environ["nnUNet_results"]) / self.folder
        folder /= f"{self.arguments.trainer}__{PLANS}__{TEMPORAL_CONFIGURATION}"
        predictor = nnUNetPredictor(use_mirroring=False, device=torch.device(self.arguments.device), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), tuple(range(self.arguments.folds)))
        if name == AVERAGED:
            weights = predictor.list_of_parameters
            mean = {key: torch.stack([each[key].float() for each in weights]).mean(0) for key in weights[0]}
            predictor.list_of_parameters = [mean]
        return self.score(predictor, name)

    def score(self, predictor: nnUNetPredictor, name: str) -> dict:
        """Segment every held-out sequence and score its frames."""
        cases = [case for study in self.studies.values() for case in study["cases"]]
        seconds, scores = 0.0, {}
        for case in tqdm(cases, desc=name, unit="sequence"):
            start = time.perf_counter()
            mask = predict_case(predictor, case, self.raw / "imagesTs")
            seconds += time.perf_counter() - start
            scores[case] = score_frames(mask, truth_of(case, self.raw))
        return {"dice": scores, "predict_seconds": seconds, "networks": len(predictor.list_of_parameters)}

    def result(self, name: str, run: Callable[[], dict]) -> dict:
        """Return the result of a run, which is started unless it is finished."""
        file = self.arguments.output / f"{name.replace(' ', '_')}.json"
        if not file.is_file():
            write_json(run(), file)
        return json.loads(file.read_text())

    def results(self) -> dict[str, list[dict]]:
        """Run or read everything: the folds under one name, all else alone."""
        folds = [self.result(f"fold {n}", lambda n=n: self.train_fold(n)) for n in range(self.arguments.folds)]
        together = {name: [self.result(name, lambda n=name: self.of_all_folds(n))] for name in (ENSEMBLE, AVERAGED)}
        names = [*STUDENTS, *(ABLATIONS if self.arguments.ablations else ())]
        students = {name: [self.result(name, lambda n=name: self.train_student(n))] for name in names}
        return {"one fold": folds, **together, **students}


def print_table(results: dict[str, list[dict]], studies: dict[str, dict]) -> None:
    """Print Dice in points, the paired difference to the ensemble, and what a prediction costs."""
    scores = {name: [rows_of(run["dice"], studies) for run in runs] for name, runs in results.items()}
    for row in ROWS:
        print(f"\n{row}: mean Dice in points of {len(scores[ENSEMBLE][0][row])} held-out studies")
        print(f"  {'':24}{'Dice':>8}   {f'minus {ENSEMBLE}':26}{f'{STUDENT} minus it':26}")
        for name, runs in scores.items():
            differences = (difference(runs, scores[ENSEMBLE], row), difference(scores[STUDENT], runs, row))
            mean = 100 * np.mean([list(run[row].values()) for run in runs])
            print(f"  {name:24}{mean:8.2f}   {differences[0]:26}{differences[1]:26}")
    print(f"\n  {'':24}{'networks':>10}{'prediction':>12}{'training':>12}")
    for name, runs in results.items():
        train = f"{np.mean([run['train_seconds'] for run in runs]):10.0f} s" if "train_seconds" in runs[0] else ""
        predict = np.mean([run["predict_seconds"] for run in runs])
        print(f"  {name:24}{runs[0]['networks']:10}{predict:10.1f} s{train:>12}")


def main() -> None:
    """Run or resume the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=int, required=True, help="id of the dataset to make or to reuse")
    parser.add_argument("--trainer", default="nnUNetTrainerPlaceMemory")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2000, help="steps of each fold")
    parser.add_argument("--student-steps", type=int, default=1000)
    parser.add_argument("--ablations", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    os.environ["nnUNet_results"] = str(arguments.output / "models")
    setting = {key: getattr(arguments, key) for key in ("dataset", "trainer", "folds", "steps", "student_steps")}
    file = arguments.output / "setting.json"
    if file.is_file() and json.loads(file.read_text()) != setting:
        raise SystemExit(f"{file}: {arguments.output} holds results of another setting; choose another --output")
    write_json(setting, file)
    make_dataset(arguments.dataset)
    benchmark = Benchmark(arguments)
    print_table(benchmark.results(), benchmark.studies)


if __name__ == "__main__":
    main()
