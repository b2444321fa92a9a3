"""``nnunet_temporal export``: a trained model as an ONNX file for live video, and all that is needed to run it."""

import argparse
from pathlib import Path

from nnunet_temporal.commands.trained_model import add_model_arguments, model_folder
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.onnx_export import export_model
from nnunet_temporal.inference.onnx_files import SIDECAR_FILE, STEP_FILE

HELP = "Export a trained model as an ONNX step, one frame and the memory in, logits and the memory out."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments; those that ``nnUNetv2_predict`` has too are called as there."""
    add_model_arguments(parser, folds_help="the fold (default: the only one that is trained)")
    parser.add_argument(
        "-o", type=Path, required=True, metavar="FOLDER", help="where to write the two files; made when missing"
    )


def run(arguments: argparse.Namespace) -> int:
    """Export the model, and say how closely onnxruntime agrees with torch."""
    folds = arguments.f or [None]
    if len(folds) > 1:
        raise InputError(
            f"-f {' '.join(map(str, folds))}: one file holds one network; choose one fold, or distil them into one "
            "network first (documentation/how_to/distil_an_ensemble.md)"
        )
    difference = export_model(model_folder(arguments), arguments.o, folds[0], arguments.chk)
    print(f"{arguments.o / STEP_FILE} and {SIDECAR_FILE} written; onnxruntime's logits differ by {difference:.1g}")
    return 0
