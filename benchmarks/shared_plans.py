"""Datasets that benchmarks compare: the same plans for all of them, so that every step sees as many labelled frames.

nnU-Net's batches are small for small datasets: each dataset on its own plans, and a training with few studies would see
fewer labelled frames per step, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset
from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import move_plans_between_datasets
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from training_runs import run_command

from nnunet_temporal.plans import TEMPORAL_CONFIGURATION
from nnunet_temporal.sequences import Manifest

OWN_PLANS = "nnUNetTemporalLightPlans"
SHARED_PLANS = "nnUNetTemporalSharedPlans"


@dataclass(frozen=True)
class Dataset:
    """One of nnU-Net's datasets, made or not."""

    dataset_id: int
    name: str

    @property
    def folder_name(self) -> str:
        """Name of its folder."""
        return f"Dataset{self.dataset_id:03d}_{self.name}"

    @property
    def raw(self) -> Path:
        """Its raw folder."""
        return Path(str(nnUNet_raw)) / self.folder_name

    @property
    def preprocessed(self) -> Path:
        """Its preprocessed folder."""
        return Path(str(nnUNet_preprocessed)) / self.folder_name

    @property
    def plans_file(self) -> Path:
        """The plans it shares with others."""
        return self.preprocessed / f"{SHARED_PLANS}.json"


def prepare(datasets: Sequence[Dataset], planned: Dataset) -> None:
    """Preprocess datasets by the light plans of one of them, or of another one; what is done already is left alone.

    Args:
        datasets: Their raw folders exist.
        planned: The dataset whose plans all get.
    """
    for dataset in dict.fromkeys((planned, *datasets)):
        if not (dataset.preprocessed / f"{OWN_PLANS}.json").is_file():
            words = ["plan_and_preprocess", "-d", str(dataset.dataset_id), "-pl", "LightTemporalPlanner"]
            run_command([*words, "-npfp", "1", "--no_pp"])
    for dataset in datasets:
        if not dataset.plans_file.is_file():
            move_plans_between_datasets(planned.dataset_id, dataset.dataset_id, OWN_PLANS, SHARED_PLANS)
        if not _is_preprocessed(dataset):
            preprocess_dataset(dataset.dataset_id, SHARED_PLANS, [TEMPORAL_CONFIGURATION], [1])


def _is_preprocessed(dataset: Dataset) -> bool:
    plan = load_json(str(dataset.plans_file))["configurations"][TEMPORAL_CONFIGURATION]
    cases = (dataset.preprocessed / plan["data_identifier"]).glob("*.pkl")
    return {case.stem for case in cases} == set(Manifest.load(dataset.preprocessed))
