"""``nnunet_temporal ensemble``: the mean of several models, also of different trainers, and of their validations."""

import argparse
from pathlib import Path

from nnunet_temporal.inference.ensemble import ensemble_folders

HELP = "Average the probabilities of several models, also of different trainers, and of their cross-validations."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb; those it shares with ``nnUNetv2_ensemble`` are called alike."""
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="two or more folders: written by 'nnUNetv2_predict --save_probabilities', or of trained models "
        "(TRAINER__PLANS__CONFIGURATION in nnUNet_results) whose folds were all validated with --npz",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the masks, one per sequence")
    parser.add_argument(
        "-f", "--folds", type=int, nargs="+", metavar="FOLD", help="folds of trained models (default: all there are)"
    )
    parser.add_argument("--save_npz", action="store_true", help="also write the averaged probabilities")


def run(arguments: argparse.Namespace) -> int:
    """Average and say what to run next."""
    output: Path = arguments.output
    masks = ensemble_folders(arguments.input, output, folds=arguments.folds, save_probabilities=arguments.save_npz)
    plans, dataset = output / "plans.json", output / "dataset.json"
    print(f"{len(masks)} cases, averaged over {len(arguments.input)} models, in {output}")
    print("Score them where there are labels (--chill passes over cases that nobody predicted):")
    print(f"  nnUNetv2_evaluate_folder LABELS {output} -djfile {dataset} -pfile {plans} --chill")
    print("Finish new studies:")
    print(f"  nnUNetv2_apply_postprocessing -i {output} -o MASKS -pp_pkl_file postprocessing.pkl -plans_json {plans}")
    print("  nnunet_temporal merge -i MASKS -s SEQUENCES -o MERGED")
    return 0
