"""What the planner decides for five kinds of data, and that each plan trains and predicts.

    python benchmarks/planning.py --output DIR

draws five phantom datasets, plans each with ``TemporalPlanner`` and ``LightTemporalPlanner``, trains the light plan for
ten iterations and predicts the held-out study, all through the commands a user types. It prints the table of
documentation/explanation/planning.md and the planner's own lines, and writes both to DIR/planning.json. ``--plan-only``
leaves the trainings out. Interrupted, it goes on with the next dataset; remove DIR to start anew.
"""

import argparse
import json
import os
from pathlib import Path

from nnunet_temporal.atomic import write_json
from nnunet_temporal.commands.env import search_path_folder
from nnunet_temporal.commands.steps import Step, run_steps

DATASETS = {
    "SAX, 25 phases": ("cine", "--frames-per-cycle", "25-25"),
    "SAX, 13 phases": ("cine", "--frames-per-cycle", "13-13"),
    "echo, half cycles": ("echo", "--frames-per-cycle", "36-44", "--beats", "0.5-0.6"),
    "echo, 50 fps, several beats": ("echo", "--frames-per-cycle", "40-50", "--beats", "2-3"),
    "echo, clips of 300 frames": ("echo", "--frames-per-cycle", "66-68", "--beats", "4.4-4.6"),
}
PLANS = {"TemporalPlanner": "nnUNetTemporalPlans", "LightTemporalPlanner": "nnUNetTemporalLightPlans"}
FIRST_ID, STUDIES, SIZE = 301, 6, 128


def run_dataset(number: int, options: tuple[str, ...], environment: dict[str, str], folder: Path, train: bool) -> dict:
    """Draw, plan and train one dataset; return its plans by planner."""
    dataset, (modality, *drawn) = str(FIRST_ID + number), options
    ours = ("nnunet_temporal",)
    draw = ("phantom", "-d", dataset, "--modality", modality, "-n", str(STUDIES), "--test", "1", "--size", str(SIZE))
    steps = [Step("draw", (*ours, *draw, *drawn, "--name", f"Planning{number}", "--overwrite"))]
    for planner in PLANS:
        plan = ("plan_and_preprocess", "-d", dataset, "-pl", planner, "-npfp", "2", "-np", "2")
        light = planner == "LightTemporalPlanner"
        steps.append(Step(planner, (*ours, *plan, *(() if light and train else ("--no_pp",)))))
    if train:
        model = ("2dt", "-tr", "nnUNetTrainerGDKVM_10iterations", "-p", "nnUNetTemporalLightPlans")
        raw = Path(environment["nnUNet_raw"]) / f"Dataset{dataset}_Planning{number}"
        steps.append(Step("train", ("nnUNetv2_train", dataset, model[0], "0", *model[1:], "-device", "cpu")))
        predict = ("-i", str(raw / "imagesTs"), "-o", str(folder / "masks"), "-d", dataset, "-f", "0", "-c", *model)
        quick = ("-device", "cpu", "--disable_tta", "-npp", "1", "-nps", "1", "-chk", "checkpoint_final.pth")
        steps.append(Step("predict", ("nnUNetv2_predict", *predict, *quick)))
    folder.mkdir(parents=True, exist_ok=True)
    seconds = run_steps(steps, environment, folder)
    preprocessed = Path(environment["nnUNet_preprocessed"]) / f"Dataset{dataset}_Planning{number}"
    plans = {planner: json.loads((preprocessed / f"{name}.json").read_text()) for planner, name in PLANS.items()}
    masks = sorted(path.name for path in (folder / "masks").glob("*.nii.gz"))
    configurations = {planner: content["configurations"]["2dt"] for planner, content in plans.items()}
    return {"configurations": configurations, "seconds": seconds, "masks": masks}


def table(results: dict[str, dict], planner: str) -> str:
    """Lay out what differs between the datasets, as Markdown."""
    rows = [
        "| data | patch | clips x frames | segmented | stride | rotation | mirror |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        plan = result["configurations"][planner]
        time, (_, height, width) = plan["temporal"], plan["patch_size"]
        step = f"{plan['batch_size']} x {time['clip_length']}"
        augmented = f"{time['rotation_degrees']:g} | {time['mirror_axes']}"
        frames = f"{time['decoded_frames']} | {time['frame_stride']}"
        rows.append(f"| {name} | {height} x {width} | {step} | {frames} | {augmented} |")
    return "\n".join(rows)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--plan-only", action="store_true")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    folders = {f"nnUNet_{name}": str(output / f"nnUNet_{name}") for name in ("raw", "preprocessed", "results")}
    for folder in folders.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **folders, "nnUNet_extTrainer": str(search_path_folder()), "nnUNet_compile": "f"}
    results = {}
    for number, (name, options) in enumerate(DATASETS.items()):
        path = output / f"{number}.json"
        if not path.is_file():
            write_json(run_dataset(number, options, environment, output / str(number), not arguments.plan_only), path)
        results[name] = json.loads(path.read_text())
    write_json(results, output / "planning.json")
    for planner in PLANS:
        print(f"\n{planner}\n\n{table(results, planner)}")
    for name, result in results.items():
        print(f"\n{name}", *result["configurations"]["TemporalPlanner"]["temporal"]["reasons"], sep="\n  ")


if __name__ == "__main__":
    main()
