"""Does memory help where single frames do not suffice? A segment of the wall is lost for a third of every beat.

Draws echo phantoms with ``--lost-segment`` (see documentation/how_to/phantom.md), plans them, trains nnU-Net's 2D
trainer, hands its weights to the temporal trainers as ``nnunet_temporal inflate`` does, and trains each a little
further, with as many labelled frames per step. Every frame of the held-out studies is scored against its truth; the
score of a study is the mean Dice of ventricle and wall over its affected frames, and the methods are compared study by
study. Some more trainings keep the comparison honest:

* the 2D trainer with the same further steps, with twice as many from the start, and with as many again after these,
  which should bring it nothing more: else more training could give what memory seems to give;
* the first temporal trainer without its memory, which differs from the 2D trainer by augmentation and sampling alone:
  what a method gains over it is the memory's doing;
* what a sense of time costs: the first temporal trainer with a tenth of the 2D trainer's steps, from its weights and
  from random ones.

    python benchmarks/dropout.py --dataset 95 --seeds 3 --output DIR

nnU-Net's three folders must be set; the dataset is made in them where it is missing. ``--trainers`` chooses the
temporal trainers. Interrupted, it resumes: every finished run is a JSON file in DIR.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from tqdm import tqdm
from training_runs import STOCK_TRAINER, build_trainer, predict_case, predictor_of, run_command

from nnunet_temporal.atomic import atomic_path, write_json
from nnunet_temporal.datasets.phantom.apical_heart import LABELS
from nnunet_temporal.datasets.phantom.dataset import STUDIES_NAME, TRUTH_FOLDER
from nnunet_temporal.metrics.bootstrap import compare_paired
from nnunet_temporal.metrics.overlap import dice
from nnunet_temporal.trainers.inflate import inflate
from nnunet_temporal.trainers.variants import METHODS

NAME = "PhantomLostSegment"
PLANS = "nnUNetTemporalLightPlans"
STRUCTURES = ("LV", "MYO")
# Which frames of which studies: affected ones of all, of studies with a labelled frame among them, and of the others.
ROWS = ("affected", "affected, labelled", "affected, unlabelled", "all frames")

Scores = dict[str, dict[str, float]]
"""Mean Dice per row and study."""


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        trainer: Name of the trainer.
        steps: Steps it takes.
        start: Steps of the 2D training whose weights it starts from; 0: random ones.
        memory: Whether its network keeps its memory.
    """

    trainer: str
    steps: int
    start: int = 0
    memory: bool = True

    @property
    def name(self) -> str:
        """Name in tables."""
        steps = f"{self.start} + {self.steps}" if self.start else f"{self.steps}"
        return f"{self.trainer}{'' if self.memory else ' without memory'}, {steps} steps"

    def file(self, folder: Path, seed: int, suffix: str) -> Path:
        """Name the file in ``folder`` that holds a run's result (json) or weights (pth)."""
        return folder / f"{self.name.replace(', ', '_').replace(' ', '_')}_seed{seed}.{suffix}"


def arms_of(trainers: list[str], iterations: int, further: int) -> list[Arm]:
    """List all arms: the 2D ones, the control, the methods, and the first method with a tenth of the 2D steps."""
    stock = Arm(STOCK_TRAINER, iterations)
    first, tenth = trainers[0], iterations // 10
    return [
        stock,
        Arm(STOCK_TRAINER, 2 * iterations),
        Arm(STOCK_TRAINER, 2 * iterations, start=2 * iterations),
        Arm(STOCK_TRAINER, further, start=iterations),
        Arm(first, further, start=iterations, memory=False),
        *(Arm(trainer, further, start=iterations) for trainer in trainers),
        Arm(first, tenth, start=iterations),
        Arm(first, tenth),
    ]


def make_dataset(dataset: int) -> None:
    """Draw and plan the phantoms unless that was done before."""
    folder = f"Dataset{dataset:03d}_{NAME}"
    if not (Path(str(nnUNet_raw)) / folder).is_dir():
        size = ["-n", "24", "--test", "16", "--size", "64", "--frames-per-cycle", "20-24", "--beats", "1"]
        words = ["phantom", "-d", str(dataset), "--name", NAME, "--modality", "echo", *size, "--lost-segment"]
        run_command([*words, "--seed", "1"])
    if not (Path(str(nnUNet_preprocessed)) / folder / f"{PLANS}.json").is_file():
        run_command(
            ["plan_and_preprocess", "-d", str(dataset), "-pl", "LightTemporalPlanner", "-np", "1", "-npfp", "1"]
        )


def run(arm: Arm, plans_file: Path, raw: Path, folder: Path, seed: int, device: torch.device) -> None:
    """Train once, score every frame of the held-out studies, and write weights and result."""
    without_memory = {} if arm.memory else {"memory_stages": []}
    trainer = build_trainer(arm.trainer, plans_file, arm.steps, seed, device, **without_memory)
    if arm.start:
        weights = torch.load(Arm(STOCK_TRAINER, arm.start).file(folder, seed, "pth"), weights_only=True)
        if arm.trainer == STOCK_TRAINER:
            trainer.initialize()
            trainer.network.load_state_dict(weights)
        else:
            inflate(trainer, weights)
    start = time.perf_counter()
    trainer.run_training()
    seconds = time.perf_counter() - start
    with atomic_path(arm.file(folder, seed, "pth")) as path:
        torch.save(trainer.network.state_dict(), path)
    predictor = predictor_of(trainer)
    studies = held_out(raw)
    cases = [case for study in studies.values() for case in study["cases"]]
    masks = {
        case: predict_case(predictor, case, raw / "imagesTs") for case in tqdm(cases, desc=arm.name, unit="sequence")
    }
    scores = {case: score_frames(mask, truth_of(case, raw)) for case, mask in masks.items()}
    result = {**asdict(arm), "seed": seed, "train_seconds": seconds, "dice": scores}
    write_json(result, arm.file(folder, seed, "json"))


def score_frames(mask: np.ndarray, truth: np.ndarray) -> list[float]:
    """Return the mean Dice of ventricle and wall in each frame of (T, Y, X) label maps."""
    return [
        float(np.mean([dice(found == LABELS[name], true == LABELS[name]) for name in STRUCTURES]))
        for found, true in zip(mask, truth, strict=True)
    ]


def rows_of(dice_of_frames: dict[str, list[float]], studies: dict[str, dict]) -> Scores:
    """Average a run's Dice per study, over the frames of each of ``ROWS``."""
    scores: Scores = {row: {} for row in ROWS}
    for name, study in studies.items():
        values = np.array([dice_of_frames[case] for case in study["cases"]])
        affected = np.array(study["lost_segment"]["affected"])
        at_label = affected[[study["ed"], study["es"]]].any()
        scores["affected"][name] = float(values[:, affected].mean())
        scores[f"affected, {'' if at_label else 'un'}labelled"][name] = scores["affected"][name]
        scores["all frames"][name] = float(values.mean())
    return scores


def held_out(raw: Path) -> dict[str, dict]:
    """Return what is known of each held-out study."""
    facts = json.loads((raw / TRUTH_FOLDER / STUDIES_NAME).read_text())["studies"]
    return {name: study for name, study in facts.items() if study["group"] == "test"}


def truth_of(case: str, raw: Path) -> np.ndarray:
    """Read the truth of a sequence, (T, Y, X)."""
    return SimpleITKIO().read_seg(str(raw / TRUTH_FOLDER / f"{case}.nii.gz"))[0][0]


def print_table(results: dict[Arm, list[Scores]], baselines: dict[str, Arm]) -> None:
    """Print each arm's Dice in points, its spread over the seeds, and its paired differences to the baselines."""
    for row in ROWS:
        seeds = len(next(iter(results.values())))
        print(f"\n{row}: Dice of {' and '.join(STRUCTURES)} in points, mean +- SD of {seeds} seeds")
        print(f"  {'':48} {'':14} " + "".join(f"{f'minus {baseline}':26}" for baseline in baselines))
        for arm, runs in results.items():
            per_seed = [100 * np.mean(list(scores[row].values())) for scores in runs]
            differences = "".join(f"{difference(runs, results[other], row):26}" for other in baselines.values())
            print(f"  {arm.name:48} {np.mean(per_seed):6.2f} +- {np.std(per_seed):4.2f} {differences}")


def difference(runs: list[Scores], baseline: list[Scores], row: str) -> str:
    """Compare study by study, each study by the mean of the runs: Dice in points with its 95 % interval."""
    studies = list(baseline[0][row])
    ours, theirs = (
        100 * np.mean([[scores[row][study] for study in studies] for scores in arm], axis=0) for arm in (runs, baseline)
    )
    compared = compare_paired(ours, theirs, studies).difference
    return f"{compared.mean:+6.2f} [{compared.lower:+.2f}, {compared.upper:+.2f}]"


def main() -> None:
    """Run or resume the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=int, required=True, help="id of the dataset to make or to reuse")
    parser.add_argument("--trainers", nargs="+", default=[method.__name__ for method in METHODS])
    parser.add_argument("--iterations", type=int, default=2000, help="steps of the 2D training")
    parser.add_argument("--further", type=int, default=400, help="steps that follow it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    make_dataset(arguments.dataset)
    folder = f"Dataset{arguments.dataset:03d}_{NAME}"
    raw, plans_file = Path(str(nnUNet_raw)) / folder, Path(str(nnUNet_preprocessed)) / folder / f"{PLANS}.json"
    arms = arms_of(arguments.trainers, arguments.iterations, arguments.further)
    results: dict[Arm, list[Scores]] = {arm: [] for arm in arms}
    for seed in range(arguments.seeds):
        for arm in arms:
            path = arm.file(arguments.output, seed, "json")
            if not path.is_file():
                run(arm, plans_file, raw, arguments.output, seed, torch.device(arguments.device))
            results[arm].append(rows_of(json.loads(path.read_text())["dice"], held_out(raw)))
    _, doubled, _, further, control, *_ = arms
    print_table(results, {"2D": further, "2D, doubled": doubled, "without memory": control})


if __name__ == "__main__":
    main()
