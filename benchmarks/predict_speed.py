"""How fast is ``nnunet_temporal predict``, files in and masks out, and what does it need?

    python benchmarks/predict_speed.py --clips 20 --frames 150 --device cpu --output DIR

draws phantom echo clips of 112 x 112 pixels, plans them, and writes untrained models, whose speed is that of trained
ones: GDKVM on 2dt, nnU-Net's own on 2d. Then the commands that a user types run in turn, starting up included and
without mirroring, ours and ``nnUNetv2_predict`` on the same files and weights; the fastest round counts, because
whatever else a machine does only ever adds time. Printed are frames per second and ratios, how far the masks of both
agree, what five folds cost, the peak memory beyond input and masks for several lengths, and the time of a live step;
all is kept in DIR/predict_speed.json. Drawing and planning happen once per DIR.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from training_runs import STOCK_TRAINER

from nnunet_temporal.atomic import write_json
from nnunet_temporal.commands.env import VARIABLE, search_path_folder
from nnunet_temporal.commands.steps import Step, run_steps
from nnunet_temporal.datasets.phantom.apical_heart import VIEWS
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.sequence_predictor import SequencePredictor

DATASET, NAME, SIZE = "361", "Dataset361_Speed", 112
TRAINERS = {"2dt": "nnUNetTrainerGDKVM", "2d": STOCK_TRAINER}
PLANNERS = {"LightTemporalPlanner": "nnUNetTemporalLightPlans", "TemporalPlanner": "nnUNetTemporalPlans"}
FOLDS = 5
LATENCY_SIDES, LATENCY_STEPS = (112, 256), 60


def model_folder(plans: str, configuration: str) -> Path:
    """Return where the model of a configuration lies."""
    return Path(os.environ["nnUNet_results"]) / NAME / f"{TRAINERS[configuration]}__{plans}__{configuration}"


def draw_and_plan(folder: Path, clips: int, frames: int, planner: str) -> None:
    """Draw a dataset whose held-out sequences are the clips, plan it, and write untrained models of five folds."""
    studies = -(-clips // len(VIEWS))
    per_cycle = f"{frames / 3:g}-{frames / 3:g}"
    draw = ("phantom", "-d", DATASET, "--name", "Speed", "--modality", "echo", "-n", "5", "--test", str(studies))
    drawn = ("--size", str(SIZE), "--frames-per-cycle", per_cycle, "--beats", "3-3", "--overwrite")
    plan = ("plan_and_preprocess", "-d", DATASET, "-pl", planner, "--no_pp", "-npfp", "2", "-c", "2d", "2dt")
    steps = [Step("draw", ("nnunet_temporal", *draw, *drawn)), Step("plan", ("nnunet_temporal", *plan))]
    run_steps(steps, os.environ, folder)
    (folder / "clips").mkdir()
    for image in sorted((Path(os.environ["nnUNet_raw"]) / NAME / "imagesTs").glob("*.nii.gz"))[:clips]:
        shutil.copy(image, folder / "clips")
    plans_file = Path(os.environ["nnUNet_preprocessed"]) / NAME / f"{PLANNERS[planner]}.json"
    for configuration in TRAINERS:
        write_untrained(plans_file, configuration, model_folder(PLANNERS[planner], configuration))


def write_untrained(plans_file: Path, configuration: str, target: Path) -> None:
    """Write a model of five folds as nnU-Net leaves it, with the weights that a training starts from."""
    plans, dataset = PlansManager(str(plans_file)), json.loads((plans_file.parent / "dataset.json").read_text())
    manager, trainer = plans.get_configuration(configuration), TRAINERS[configuration]
    heads = plans.get_label_manager(dataset).num_segmentation_heads
    build = recursive_find_trainer_class_by_name(trainer).build_network_architecture
    for fold in range(FOLDS):
        torch.manual_seed(fold)
        (target / f"fold_{fold}").mkdir(parents=True)
        checkpoint = {
            "network_weights": build(plans, manager, 1, heads, False).state_dict(),
            "trainer_name": trainer,
            "init_args": {"configuration": configuration},
            "inference_allowed_mirroring_axes": None,
        }
        torch.save(checkpoint, target / f"fold_{fold}" / "checkpoint_final.pth")
    write_json(plans.plans, target / "plans.json")
    write_json(dataset, target / "dataset.json")


def commands(folder: Path, plans: str, device: str) -> list[Step]:
    """Return the arms: which program, which configuration, how many folds."""
    arms = [("ours", c, 1) for c in TRAINERS] + [("stock", c, 1) for c in TRAINERS] + [("ours", "2dt", FOLDS)]
    steps = []
    for program, configuration, folds in arms:
        name = f"{program} {configuration} {folds}"
        ours = program == "ours"
        model = ("-d", DATASET, "-c", configuration, "-p", plans, "-tr", TRAINERS[configuration])
        files = ("-i", str(folder / "clips"), "-o", str(folder / name.replace(" ", "_")))
        options = ("-f", *map(str, range(folds)), "-device", device, "--disable_tta")
        command = ("nnunet_temporal", "predict") if ours else ("nnUNetv2_predict",)
        steps.append(Step(name, (*command, *files, *model, *options)))
    return steps


def time_commands(folder: Path, steps: list[Step], rounds: int) -> dict[str, float]:
    """Run all arms in turn; return the fastest seconds of each."""
    fastest: dict[str, float] = {}
    for number in range(rounds):
        logs = folder / f"round_{number}"
        logs.mkdir(exist_ok=True)
        for name, seconds in run_steps(steps, os.environ, logs).items():
            fastest[name] = min(seconds, fastest.get(name, seconds))
    return fastest


def agreement(folder: Path, configuration: str) -> float:
    """Return the share of pixels to which both programs give the same label."""
    same = []
    for file in sorted((folder / f"stock_{configuration}_1").glob("*.nii.gz")):
        stock, ours = nibabel.load(file), nibabel.load(folder / f"ours_{configuration}_1" / file.name)
        same.append(np.mean(np.asarray(stock.dataobj) == np.asarray(ours.dataobj)))
    return float(np.mean(same))


def movie(frames: int, side: int) -> np.ndarray:
    """Return grey values (T, Y, X), uint8."""
    return np.random.default_rng(0).integers(1, 255, (frames, side, side), dtype=np.uint8)


def peak_mb(folder: Path, device: str, frames: int) -> float:
    """Measure the peak memory of a first prediction in a new process, in MB beyond model, input and masks."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_mb, (folder, device, frames))


def _peak_mb(folder: Path, device: str, frames: int) -> float:
    model, image = TrainedModel.read(folder, [0]), movie(frames, SIZE)
    predictor = SequencePredictor(model, device)
    before = _status_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    masks = predictor.predict(image, tuple(model.configuration.spacing)).masks
    return _status_mb("VmHWM") - before - masks.nbytes / 1e6


def step_ms(folder: Path, device: str, side: int) -> float:
    """Return the median milliseconds of a live step, of frames that fit into one window of the network."""
    model = TrainedModel.read(folder, [0])
    configuration = deepcopy(model.configuration.configuration)
    configuration["patch_size"] = [configuration["patch_size"][0], side, side]
    model = replace(model, configuration=ConfigurationManager(configuration))
    clip = movie(LATENCY_STEPS, side)
    stream = SequencePredictor(model, device).stream(tuple(configuration["spacing"]), warm_up=clip[:10])
    times = []
    for frame in clip:
        start = time.perf_counter()
        stream.step(frame)
        times.append(time.perf_counter() - start)
    return float(np.median(times[10:])) * 1000


def _status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024 / 1e6


def report(results: dict) -> None:
    """Print the results."""
    frames, seconds = results["clips"] * results["frames"], results["seconds"]
    print(f"\n{results['clips']} clips of {results['frames']} frames, {SIZE} x {SIZE}, {results['planner']}, ", end="")
    print(f"{results['device']}, {torch.get_num_threads()} threads")
    for name, value in seconds.items():
        print(f"  {name:14} {value:8.1f} s {frames / value:8.1f} frames/s")
    for other in ("2dt", "2d"):
        print(
            f"  ours on 2dt is {seconds[f'stock {other} 1'] / seconds['ours 2dt 1']:.2f} x as fast as stock on {other}"
        )
    print(f"  {FOLDS} folds take {seconds[f'ours 2dt {FOLDS}'] / seconds['ours 2dt 1']:.2f} x as long as one")
    for configuration, share in results["same_pixels"].items():
        print(f"  {configuration}: {share:.5%} of the pixels have the same label as by stock prediction")
    print(
        "  peak memory beyond model, input and masks:",
        *(f"{n} frames {mb:.0f} MB;" for n, mb in results["peak_mb"].items()),
    )
    print("  live step:", *(f"{side} x {side} {ms:.1f} ms;" for side, ms in results["step_ms"].items()))


def main() -> None:
    """Measure everything in one run and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--frames", type=int, default=150, help="frames of a clip, three beats; 24 or more")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--planner", choices=PLANNERS, default="LightTemporalPlanner")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--memory-frames", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    folder, plans = arguments.output.resolve(), PLANNERS[arguments.planner]
    os.environ[VARIABLE] = str(search_path_folder())
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder / name)
    if not (folder / "clips").is_dir():
        draw_and_plan(folder, arguments.clips, arguments.frames, arguments.planner)
    results = {**vars(arguments), "output": str(folder)}
    results["seconds"] = time_commands(folder, commands(folder, plans, arguments.device), arguments.rounds)
    results["same_pixels"] = {configuration: agreement(folder, configuration) for configuration in TRAINERS}
    model = model_folder(plans, "2dt")
    results["peak_mb"] = {frames: peak_mb(model, arguments.device, frames) for frames in arguments.memory_frames}
    results["step_ms"] = {side: step_ms(model, arguments.device, side) for side in LATENCY_SIDES}
    write_json(results, folder / "predict_speed.json")
    report(results)


if __name__ == "__main__":
    main()
