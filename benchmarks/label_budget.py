"""What do frames bring that nobody labelled? Echo phantoms of which only a few studies are labelled, at ED and ES.

At each budget of labelled studies a semi-supervised trainer learns from all studies, and its supervised twin from a
dataset of the labelled ones alone; the labelled studies of a smaller budget are among those of a larger one, and the
held-out studies are always the same. All follow the plans of the dataset with two labelled studies, so that every step
sees as many labelled frames. At a budget of five the other semi-supervised trainers have their turn, and the supervised
twin trains twice as long: were it not trained out, steps could give what unlabelled frames seem to give. The first of
them also gets the truth of all frames in place of pseudo-labels there, the most that these could bring.

The held-out studies are scored in every frame, as predicted and with logits smoothed along time; sequence_scores.py
says by what. While a semi-supervised trainer runs, every round of its pseudo-labels is compared with the hidden truth.

    python benchmarks/label_budget.py --dataset 600 --seeds 3 --iterations 1000 --output DIR
    python benchmarks/label_budget.py --dataset 600 --cost --output DIR

nnU-Net's three folders must be set. Datasets are made in them where they are missing: with B labelled studies their
ids are ``--dataset`` + B and, labelled studies alone, + 50 + B. Interrupted, it resumes: every finished run is a JSON
file in DIR. ``--cost`` compares the computing time of steps instead (process time, on the CPU, in turns); with
nnUNet_n_proc_DA of at least 2 the loaders run in processes of their own and do not count.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from sequence_scores import COLUMNS, Scores, held_out, print_table, score_all, truth_of
from shared_plans import Dataset, prepare
from tqdm import tqdm
from training_runs import build_trainer, predict_case, predictor_of, run_command, smoothed, smoothing_predictor_of
from watched_pseudo_labels import TruePseudoLabels, WatchedPseudoLabels, print_rounds, read_truths

from nnunet_temporal.atomic import write_json
from nnunet_temporal.trainers.semi_supervised import SemiSupervised

TWINS = {
    "nnUNetTrainerTemporalSemi": "nnUNetTrainerPlaceMemory",
    "nnUNetTrainerNCMNet": "nnUNetTrainerNCMNetSupervised",
    "nnUNetTrainerMSSNet": "nnUNetTrainerMSSNetSupervised",
}
COMPARED_AT = 5
"""Labelled studies at which all trainers are compared."""
PLANNED_BY = 2
"""Labelled studies of the dataset that all plans come from: the fewest, so that none profits from labels of others."""
TIMED_TURNS = 20
SMOOTHED = "smoothed_scores"


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    trainer: str
    budget: int
    steps: int
    true_labels: bool = False

    @property
    def name(self) -> str:
        """Name in tables."""
        labels = ", true labels of all" if self.true_labels else ""
        return f"{self.trainer}, {self.budget} studies, {self.steps} steps{labels}"

    def file(self, folder: Path, seed: int) -> Path:
        """Name the file in ``folder`` that holds a run's result."""
        labels = "_truelabels" if self.true_labels else ""
        return folder / f"{self.trainer}_{self.budget}studies_{self.steps}steps{labels}_seed{seed}.json"


@dataclass(frozen=True)
class Phantoms:
    """The datasets of all budgets.

    Attributes:
        first_id: The id that theirs are counted from.
        studies: Studies to train on, labelled or not.
        held_out: Held-out studies.
    """

    first_id: int
    studies: int
    held_out: int

    def mixed(self, budget: int) -> Dataset:
        """Name the dataset in which ``budget`` studies are labelled."""
        return Dataset(self.first_id + budget, f"PhantomBudget{budget}of{self.studies}")

    def alone(self, budget: int) -> Dataset:
        """Name the dataset of the same labelled studies alone."""
        return Dataset(self.first_id + 50 + budget, f"PhantomBudget{budget}alone")

    def of(self, arm: Arm) -> Dataset:
        """Name the dataset of an arm."""
        return self.mixed(arm.budget) if arm.trainer in TWINS else self.alone(arm.budget)

    def make(self, budgets: list[int]) -> None:
        """Draw, plan and preprocess what is missing. A study is the same in all datasets that have it."""
        counts = {self.mixed(budget): (budget, self.studies - budget) for budget in (PLANNED_BY, *budgets)}
        counts |= {self.alone(budget): (budget, 0) for budget in budgets}
        for dataset, (labelled, unlabelled) in counts.items():
            if not dataset.raw.is_dir():
                words = ["phantom", "-d", str(dataset.dataset_id), "--name", dataset.name, "--modality", "echo"]
                words += ["-n", str(labelled), "--unlabelled", str(unlabelled), "--test", str(self.held_out)]
                run_command([*words, "--size", "64", "--frames-per-cycle", "20-24", "--beats", "1", "--seed", "1"])
        planned = self.mixed(PLANNED_BY)
        prepare([dataset for dataset in counts if dataset != planned or PLANNED_BY in budgets], planned)


def arms_of(trainers: list[str], budgets: list[int], steps: int) -> dict[Arm, Arm | None]:
    """List all arms, each with the one that it is compared to: the supervised twin of as many steps."""
    arms: dict[Arm, Arm | None] = {}
    for budget in budgets:
        for trainer in trainers if budget == COMPARED_AT else trainers[:1]:
            twin = Arm(TWINS[trainer], budget, steps)
            arms |= {twin: None, Arm(trainer, budget, steps): twin}
            if budget == COMPARED_AT and trainer == trainers[0]:
                arms |= {Arm(TWINS[trainer], budget, 2 * steps): twin, Arm(trainer, budget, steps, True): twin}
    return arms


def run(arm: Arm, dataset: Dataset, seed: int, device: torch.device) -> dict[str, object]:
    """Train once, score every frame of the held-out studies, and return that and what the pseudo-labels were like."""
    trainer = build_trainer(arm.trainer, dataset.plans_file, arm.steps, seed, device)
    if isinstance(trainer, SemiSupervised):
        kind = TruePseudoLabels if arm.true_labels else WatchedPseudoLabels
        trainer.pseudo_labels = kind(read_truths(dataset, trainer))
    start = time.perf_counter()
    trainer.run_training()
    seconds = time.perf_counter() - start
    scores = {}
    for name, predictor in (("scores", predictor_of(trainer)), (SMOOTHED, smoothing_predictor_of(trainer))):
        cases = tqdm(held_out(dataset), desc=arm.name, unit="sequence")
        masks = {case.case: predict_case(predictor, case.case, dataset.raw / "imagesTs") for case in cases}
        scores[name] = score_all(masks, dataset)
    rounds = trainer.pseudo_labels.rounds if isinstance(trainer, SemiSupervised) and not arm.true_labels else []
    shared = {**asdict(arm), "seed": seed, "train_seconds": seconds, "decoded_frames": decoded_frames(trainer)}
    return {**shared, **scores, "rounds": rounds}


def decoded_frames(trainer: nnUNetTrainer) -> dict[str, int]:
    """Return how many labelled and how many other frames a step segments."""
    temporal = trainer.temporal
    unlabelled = temporal.unlabelled_clips * temporal.window_frames if isinstance(trainer, SemiSupervised) else 0
    return {"supervised": trainer.batch_size * temporal.decoded_frames, "unlabelled": unlabelled}


def measure_cost(trainers: list[str], dataset: Dataset) -> dict[str, dict[str, float]]:
    """Measure the process time of steps, each trainer and its twin in turns: medians, of seconds and of their ratio."""
    names = [name for trainer in trainers for name in (TWINS[trainer], trainer)]
    arms = {name: build_trainer(name, dataset.plans_file, 1, 0, torch.device("cpu")) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    rounds = {}
    for name, trainer in arms.items():
        trainer.num_epochs = 1  # unlabelled frames have a part from the start of so short a training
        trainer.on_train_start()
        start = time.process_time()
        trainer.on_train_epoch_start()
        rounds[name] = time.process_time() - start
    for _ in tqdm(range(TIMED_TURNS), desc="Timing steps", unit="turn"):
        for name, trainer in arms.items():
            batch = next(trainer.dataloader_train)
            start = time.process_time()
            trainer.train_step(batch)
            seconds[name].append(time.process_time() - start)
    for trainer in arms.values():
        trainer.on_train_end()
    return {
        name: {
            "seconds_per_step": float(np.median(values)),
            "ratio": float(np.median(np.array(values) / seconds[TWINS.get(name, name)])),
            "seconds_per_round": rounds[name],
            **decoded_frames(arms[name]),
        }
        for name, values in seconds.items()
    }


def print_costs(costs: dict[str, dict[str, float]]) -> None:
    """Print one line per trainer; a round is the prediction of all training sequences by the teacher."""
    print(f"{'':32} {'s/step':>8} {'x twin':>7} {'s/round':>8}  labelled + other frames decoded per step")
    for name, cost in costs.items():
        times = f"{cost['seconds_per_step']:8.3f} {cost['ratio']:7.2f} {cost['seconds_per_round']:8.1f}"
        print(f"{name:32} {times}  {cost['supervised']} + {cost['unlabelled']}")


def print_results(results: dict[Arm, list[dict]], arms: dict[Arm, Arm | None], dataset: Dataset) -> None:
    """Print the scores of all arms below those of the truth itself, and the rounds of those with pseudo-labels."""
    truths = {sequence.case: truth_of(sequence, dataset) for sequence in held_out(dataset)}
    scores: dict[str, list[Scores]] = {"truth": [score_all(truths, dataset)]}
    baselines = {arm.name: twin.name for arm, twin in arms.items() if twin}
    for arm, runs in results.items():
        scores[arm.name] = [run["scores"] for run in runs]
        scores[smoothed(arm.name)] = [run[SMOOTHED] for run in runs]
        baselines[smoothed(arm.name)] = arm.name
    print_table(scores, baselines, COLUMNS)
    for arm, runs in results.items():
        if runs[0]["rounds"]:
            print(f"\n{arm.name}: Dice of pseudo-labels against the hidden truth in points (sequences)")
            print_rounds([run["rounds"] for run in runs])


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=int, required=True, help="the id that those of the datasets are counted from")
    parser.add_argument("--budgets", type=int, nargs="+", default=[2, 5, 10, 20], help="labelled studies, 2 to 49")
    parser.add_argument("--trainers", nargs="+", choices=list(TWINS), default=list(TWINS), help="first: at all budgets")
    parser.add_argument("--studies", type=int, default=60, help="studies to train on, labelled or not")
    parser.add_argument("--held-out", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cost", action="store_true", help="compare the computing time of steps instead")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    if not all(2 <= budget < min(50, arguments.studies) for budget in arguments.budgets):
        parser.error(f"--budgets: expected 2 to 49 and fewer than --studies {arguments.studies}")
    return arguments


def main() -> None:
    """Run or resume the benchmark and print its tables."""
    arguments = parse_arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    phantoms = Phantoms(arguments.dataset, arguments.studies, arguments.held_out)
    phantoms.make(arguments.budgets)
    dataset = phantoms.mixed(arguments.budgets[0])
    if arguments.cost:
        costs = measure_cost(arguments.trainers, dataset)
        write_json(costs, arguments.output / "cost.json")
        print_costs(costs)
        return
    arms = arms_of(arguments.trainers, arguments.budgets, arguments.iterations)
    results: dict[Arm, list[dict]] = {arm: [] for arm in arms}
    for seed in range(arguments.seeds):
        for arm in arms:
            path = arm.file(arguments.output, seed)
            if not path.is_file():
                write_json(run(arm, phantoms.of(arm), seed, torch.device(arguments.device)), path)
            results[arm].append(json.loads(path.read_text()))
    print_results(results, arms, dataset)


if __name__ == "__main__":
    main()
