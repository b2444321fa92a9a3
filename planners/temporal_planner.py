"""Plans the configuration ``2dt``: nnU-Net's 2D plan, and around it what the data say about time."""

from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
    nnUNetPlannerResEncXL,
)
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_temporal.datasets.integrity import manifest_of
from nnunet_temporal.errors import InputError
from nnunet_temporal.networks.build import sequence_architecture
from nnunet_temporal.networks.gated_delta import GatedDeltaMemory
from nnunet_temporal.planners import rules
from nnunet_temporal.planners.memory_budget import training_memory
from nnunet_temporal.planners.temporal_fingerprint import TEMPORAL_KEY
from nnunet_temporal.plans import TEMPORAL_CONFIGURATION, TemporalConfig
from nnunet_temporal.sequences import MANIFEST_NAME

SEED = 12345
"""Seed of everything random in training; a user's own goes into the plans."""


class TemporalPlanner(ExperimentPlanner):
    """Adds ``2dt`` to nnU-Net's own configurations; ``2d`` and ``3d_fullres`` stay as baselines on the same splits.

    Spatial topology, patch size and spacing come from nnU-Net's planning of ``2d``, at the same memory target. ``2dt``
    reuses the preprocessed data of ``2d``: both resample in plane only, and time is never resampled.

    Attributes:
        manifest: The training sequences.
        explanations: After planning, one line per choice about time; the plans keep them under ``temporal/reasons``.
    """

    default_plans_name = "nnUNetTemporalPlans"
    default_memory_gb: float = 8
    max_labelled_frames_per_step: int | None = None

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float | None = None,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str | None = None,
        overwrite_target_spacing: list[float] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        """Take nnU-Net's arguments, see ``ExperimentPlanner``; memory and plans' name default to the planner's own.

        Raises:
            InputError: The dataset has no valid manifest, or its fingerprint holds nothing about time.
        """
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb or self.default_memory_gb,
            preprocessor_name,
            plans_name or self.default_plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        self.manifest = manifest_of(Path(self.raw_dataset_folder))
        if TEMPORAL_KEY not in self.dataset_fingerprint:
            raise InputError(
                f"The fingerprint of {self.dataset_name} holds nothing about time. "
                "Plan with 'nnunet_temporal plan_and_preprocess', which measures that first."
            )
        self.explanations: list[str] = []

    def determine_transpose(self) -> tuple[list[int], list[int]]:
        """Keep time first, whatever its spacing: nnU-Net would move the axis of coarsest spacing to the front."""
        return [0, 1, 2], [0, 1, 2]

    def determine_resampling(self, *args: Any, **kwargs: Any) -> tuple:  # noqa: ANN401 - nnU-Net's signature
        """Resample as nnU-Net, but never take the axis of coarsest spacing for one that needs separate treatment."""
        data, data_kwargs, seg, seg_kwargs = super().determine_resampling(*args, **kwargs)
        return data, {**data_kwargs, "force_separate_z": False}, seg, {**seg_kwargs, "force_separate_z": False}

    def determine_segmentation_softmax_export_fn(self, *args: Any, **kwargs: Any) -> tuple:  # noqa: ANN401
        """As ``determine_resampling``, for probabilities on their way back."""
        function, function_kwargs = super().determine_segmentation_softmax_export_fn(*args, **kwargs)
        return function, {**function_kwargs, "force_separate_z": False}

    def generate_data_identifier(self, configuration_name: str) -> str:
        """Name preprocessed data after these plans; nnU-Net's residual presets share data we resample differently."""
        return f"{self.plans_identifier}_{configuration_name}"

    def get_plans_for_configuration(self, spacing: Any, *args: Any, **kwargs: Any) -> dict:  # noqa: ANN401
        """Plan as nnU-Net; a light preset also bounds the frames per 2D step, so that both trainers see as many."""
        plan = super().get_plans_for_configuration(spacing, *args, **kwargs)
        if len(spacing) == 2 and self.max_labelled_frames_per_step is not None:
            plan["batch_size"] = min(plan["batch_size"], self.max_labelled_frames_per_step)
        return plan

    def save_plans(self, plans: dict) -> None:
        """Add ``2dt`` to the finished plans, write them, and put the manifest beside them."""
        plans["configurations"][TEMPORAL_CONFIGURATION] = self.plan_sequences(plans["configurations"]["2d"])
        super().save_plans(plans)
        self.manifest.write(Path(str(nnUNet_preprocessed)) / self.dataset_name / MANIFEST_NAME)

    def plan_sequences(self, plan_2d: dict) -> dict:
        """Derive ``2dt`` from a finished plan of ``2d``, explaining each choice in ``explanations``."""
        measured = self.dataset_fingerprint[TEMPORAL_KEY]
        topology = self._plan_topology(plan_2d, measured["n_frames"]["median"])
        window = rules.plan_prediction_window(measured)
        topology["patch_size"] = [window.value, *plan_2d["patch_size"]]
        span, wanted, temporal, reasons = self._plan_time(plan_2d, measured)
        step = rules.plan_step(
            rules.smaller_steps(wanted, span),
            lambda step: self._training_bytes(_with_step(topology, temporal, step)),
            self.UNet_vram_target_GB,
        )
        self.explanations = [*reasons, step.reason, window.reason, rules.explain_batch_dice(plan_2d["batch_dice"])]
        return _with_step(topology, replace(temporal, reasons=tuple(self.explanations)), step.value)

    def _plan_topology(self, plan_2d: dict, n_frames: float) -> dict:
        """Give the plan of ``2d`` a time axis that nothing reaches along."""
        size = [n_frames, *plan_2d["median_image_size_in_voxels"]]
        architecture = sequence_architecture(plan_2d["architecture"])
        return {**deepcopy(plan_2d), "median_image_size_in_voxels": size, "architecture": architecture}

    def _plan_time(self, plan_2d: dict, measured: dict) -> tuple[rules.Span, rules.Step, TemporalConfig, list[str]]:
        """Choose clips, memory and augmentation as if memory were no object; a reason for each choice."""
        arguments = plan_2d["architecture"]["arch_kwargs"]
        sizes = rules.feature_map_sizes(plan_2d["patch_size"], arguments["strides"])
        stages = rules.plan_memory_stages(sizes)
        size = sizes[stages.value[-1]]
        cell_mm = float(max(np.array(plan_2d["spacing"]) * np.array(plan_2d["patch_size"]) / np.array(size)))
        span = rules.plan_span(measured)
        clip = rules.plan_clip(measured, span.value, cell_mm)
        clips = rules.plan_clips_per_step(plan_2d["batch_size"], clip.value.decoded_frames)
        memory = rules.plan_memory_size([arguments["features_per_stage"][stage] for stage in stages.value])
        patch = rules.plan_matching_patch(size)
        around = rules.plan_neighbourhood(measured, clip.value, span.value, cell_mm)
        geometry = rules.plan_geometry(list(self.dataset_json["channel_names"].values()), plan_2d["patch_size"])
        temporal = TemporalConfig(
            **asdict(clip.value),
            **asdict(memory.value),
            **asdict(geometry.value),
            memory_stages=stages.value,
            matching_patch=patch.value,
            matching_top_k=rules.MATCHING_TOP_K,
            neighbourhood=around.value,
            seed=SEED,
        )
        choices = (span, clip, clips, stages, memory, patch, around, geometry)
        return span.value, rules.Step(clips.value, clip.value), temporal, [choice.reason for choice in choices]

    def _training_bytes(self, plan: dict) -> int:
        """Predict the peak memory of training GDKVM with a plan; nnU-Net trains in mixed precision on a GPU."""
        heads = LabelManager(self.dataset_json["labels"], self.dataset_json.get("regions_class_order"))
        return training_memory(
            plan,
            len(self.dataset_json["channel_names"]),
            heads.num_segmentation_heads,
            _gated_delta_memory,
            watch_first=True,
            autocast=True,
        ).total


def _gated_delta_memory(channels: int, temporal: TemporalConfig) -> GatedDeltaMemory:
    return GatedDeltaMemory(channels, heads=temporal.heads, key_size=temporal.key_size, value_size=temporal.value_size)


def _with_step(plan: dict, temporal: TemporalConfig, step: rules.Step) -> dict:
    return replace(temporal, **asdict(step.clip)).to_configuration({**plan, "batch_size": step.clips})


class LightTemporalPlanner(TemporalPlanner):
    """A thin network for real time and for CPUs: at most 8 GFLOP per 256 x 256 frame of live video.

    Watching a recorded sequence first encodes every frame twice. Batches are small enough for a CPU to train on.
    """

    default_plans_name = "nnUNetTemporalLightPlans"
    max_labelled_frames_per_step = 12

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on unchanged
        """Take the arguments of ``TemporalPlanner``."""
        super().__init__(*args, **kwargs)
        self.UNet_base_num_features = 16
        self.UNet_max_features_2d = 256


class ResEncMTemporalPlanner(TemporalPlanner, nnUNetPlannerResEncM):
    """nnU-Net's medium residual encoder preset, for GPUs of about 10 GB."""

    default_plans_name = "nnUNetTemporalResEncMPlans"


class ResEncLTemporalPlanner(TemporalPlanner, nnUNetPlannerResEncL):
    """nnU-Net's large residual encoder preset, for GPUs of 24 GB."""

    default_plans_name = "nnUNetTemporalResEncLPlans"
    default_memory_gb = 24


class ResEncXLTemporalPlanner(TemporalPlanner, nnUNetPlannerResEncXL):
    """nnU-Net's extra large residual encoder preset, for GPUs of 40 GB."""

    default_plans_name = "nnUNetTemporalResEncXLPlans"
    default_memory_gb = 40


PLANNERS = {
    planner.__name__: planner
    for planner in (
        TemporalPlanner,
        LightTemporalPlanner,
        ResEncMTemporalPlanner,
        ResEncLTemporalPlanner,
        ResEncXLTemporalPlanner,
    )
}
