"""Plans the configuration ``2dt``: nnU-Net's 2D plan, and around it what the data say about time."""

from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
    nnUNetPlannerResEncXL,
)
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_temporal.atomic import read_json_object
from nnunet_temporal.datasets.integrity import manifest_of
from nnunet_temporal.errors import InputError
from nnunet_temporal.networks.build import sequence_architecture
from nnunet_temporal.networks.gated_delta import GatedDeltaMemory
from nnunet_temporal.planners import module_rules, rules
from nnunet_temporal.planners.memory_budget import training_memory
from nnunet_temporal.planners.temporal_fingerprint import TEMPORAL_KEY
from nnunet_temporal.planners.unlabelled_rules import UnlabelledClips, fit_unlabelled_clips, plan_unlabelled_clips
from nnunet_temporal.plans import TEMPORAL_CONFIGURATION, TemporalConfig
from nnunet_temporal.sequences import MANIFEST_NAME

SEED = 12345
"""Seed of everything random in training; a user's own goes into the plans."""

_FEWEST_UNLABELLED = UnlabelledClips(1, 1)
"""Stands in for the unlabelled part of a step as long as the supervised part is planned."""


class _Chosen(NamedTuple):
    """Choices that do not depend on how much fits into memory; a pixel of the memory has a side of ``cell_mm``."""

    span: rules.Choice[rules.Span]
    stages: rules.Choice[tuple[int, ...]]
    memory: rules.Choice[module_rules.MemorySize]
    patch: rules.Choice[int]
    geometry: rules.Choice[rules.Geometry]
    window: rules.Choice[int]
    cell_mm: float


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
            self.default_memory_gb if gpu_memory_target_in_gb is None else gpu_memory_target_in_gb,
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

    def determine_segmentation_softmax_export_fn(self, *args: Any, **kwargs: Any) -> tuple:  # noqa: ANN401 - as above
        """As ``determine_resampling``, for probabilities on their way back."""
        function, function_kwargs = super().determine_segmentation_softmax_export_fn(*args, **kwargs)
        return function, {**function_kwargs, "force_separate_z": False}

    def generate_data_identifier(self, configuration_name: str) -> str:
        """Name preprocessed data after these plans; nnU-Net's residual presets share data we resample differently."""
        return f"{self.plans_identifier}_{configuration_name}"

    def get_plans_for_configuration(self, spacing: Any, *args: Any, **kwargs: Any) -> dict:  # noqa: ANN401 - as above
        """Plan as nnU-Net; a light preset also bounds the frames per 2D step, so that both trainers see as many."""
        plan = super().get_plans_for_configuration(spacing, *args, **kwargs)
        if len(spacing) == 2 and self.max_labelled_frames_per_step is not None:
            plan["batch_size"] = min(plan["batch_size"], self.max_labelled_frames_per_step)
        return plan

    def save_plans(self, plans: dict) -> None:
        """Add ``2dt`` to the finished plans, write them, and put the manifest beside them.

        Raises:
            InputError: Plans of that name exist but are no JSON; nnU-Net keeps a user's own configurations of them.
        """
        folder = Path(str(nnUNet_preprocessed)) / self.dataset_name
        if (folder / f"{self.plans_identifier}.json").is_file():
            read_json_object(folder / f"{self.plans_identifier}.json", "Remove it and plan again.")
        plans["configurations"][TEMPORAL_CONFIGURATION] = self.plan_sequences(plans["configurations"]["2d"])
        super().save_plans(plans)
        self.manifest.write(folder / MANIFEST_NAME)

    def plan_sequences(self, plan_2d: dict) -> dict:
        """Derive ``2dt`` from a finished plan of ``2d``, explaining each choice in ``explanations``."""
        measured, frames_2d = self.dataset_fingerprint[TEMPORAL_KEY], plan_2d["batch_size"]
        chosen = self._choose(plan_2d)
        span, cell_mm = chosen.span.value, chosen.cell_mm
        clip = rules.plan_clip(measured, span, cell_mm, frames_2d)
        wanted = rules.Step(rules.plan_clips_per_step(frames_2d, clip.decoded_frames), clip)
        step = rules.plan_step(
            rules.smaller_steps(wanted, span),
            lambda step: self._training_bytes(self._configuration(plan_2d, chosen, step)),
            self.UNet_vram_target_GB,
        )
        unlabelled = fit_unlabelled_clips(
            plan_unlabelled_clips(measured, step.value),
            step.value.clips * step.value.clip.decoded_frames,
            lambda clips: self._semi_supervised_bytes(self._configuration(plan_2d, chosen, step.value, clips)),
            self.UNet_vram_target_GB,
        )
        around = module_rules.plan_neighbourhood(measured, step.value.clip, span, cell_mm)
        choices = (step, unlabelled, chosen.stages, chosen.memory, chosen.patch, around, chosen.geometry, chosen.window)
        self.explanations = [
            chosen.span.reason,
            rules.explain_clip(measured, span, step.value.clip, cell_mm),
            rules.explain_clips(step.value, frames_2d),
            *(choice.reason for choice in choices),
            rules.explain_batch_dice(plan_2d["batch_dice"]),
        ]
        return self._configuration(plan_2d, chosen, step.value, unlabelled.value)

    def _choose(self, plan_2d: dict) -> _Chosen:
        """Choose everything that does not depend on how much fits into memory."""
        measured, arguments = self.dataset_fingerprint[TEMPORAL_KEY], plan_2d["architecture"]["arch_kwargs"]
        sizes = module_rules.feature_map_sizes(plan_2d["patch_size"], arguments["strides"])
        stages = module_rules.plan_memory_stages(sizes)
        size = sizes[stages.value[-1]]
        return _Chosen(
            span=rules.plan_span(measured),
            stages=stages,
            memory=module_rules.plan_memory_size([arguments["features_per_stage"][stage] for stage in stages.value]),
            patch=module_rules.plan_matching_patch(size),
            geometry=rules.plan_geometry(list(self.dataset_json["channel_names"].values()), plan_2d["patch_size"]),
            window=rules.plan_prediction_window(measured),
            cell_mm=float(max(np.array(plan_2d["spacing"]) * np.array(plan_2d["patch_size"]) / np.array(size))),
        )

    def _configuration(
        self,
        plan_2d: dict,
        chosen: _Chosen,
        step: rules.Step,
        unlabelled: UnlabelledClips = _FEWEST_UNLABELLED,
    ) -> dict:
        """Give the plan of ``2d`` a time axis that nothing reaches along, and the temporal keys."""
        measured = self.dataset_fingerprint[TEMPORAL_KEY]
        temporal = TemporalConfig(
            **asdict(step.clip),
            **asdict(unlabelled),
            **asdict(chosen.memory.value),
            **asdict(chosen.geometry.value),
            memory_stages=chosen.stages.value,
            matching_patch=chosen.patch.value,
            matching_top_k=module_rules.MATCHING_TOP_K,
            neighbourhood=module_rules.plan_neighbourhood(measured, step.clip, chosen.span.value, chosen.cell_mm).value,
            seed=SEED,
            reasons=tuple(self.explanations),
        )
        return temporal.to_configuration(
            {
                **deepcopy(plan_2d),
                "batch_size": step.clips,
                "patch_size": [chosen.window.value, *plan_2d["patch_size"]],
                "median_image_size_in_voxels": [
                    measured["n_frames"]["median"],
                    *plan_2d["median_image_size_in_voxels"],
                ],
                "architecture": sequence_architecture(plan_2d["architecture"]),
            }
        )

    def _training_bytes(self, plan: dict) -> int:
        """Predict the peak memory of training GDKVM with a plan; nnU-Net trains in mixed precision on a GPU."""
        return self._step_bytes(plan, semi_supervised=False)

    def _semi_supervised_bytes(self, plan: dict) -> int:
        """Predict the same of a step that goes on with unlabelled clips."""
        return self._step_bytes(plan, semi_supervised=True)

    def _step_bytes(self, plan: dict, *, semi_supervised: bool) -> int:
        heads = LabelManager(self.dataset_json["labels"], self.dataset_json.get("regions_class_order"))
        return training_memory(
            plan,
            len(self.dataset_json["channel_names"]),
            heads.num_segmentation_heads,
            _gated_delta_memory,
            watch_first=True,
            autocast=True,
            semi_supervised=semi_supervised,
        ).total


def _gated_delta_memory(channels: int, temporal: TemporalConfig) -> GatedDeltaMemory:
    return GatedDeltaMemory(channels, heads=temporal.heads, key_size=temporal.key_size, value_size=temporal.value_size)


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
