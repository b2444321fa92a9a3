"""Plans the configuration ``2dt``: nnU-Net's 2D plan, and around it what the data say about time."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.paths import nnUNet_preprocessed

from nnunet_temporal.datasets.integrity import manifest_of
from nnunet_temporal.networks.build import sequence_architecture
from nnunet_temporal.planners import rules
from nnunet_temporal.plans import TEMPORAL_CONFIGURATION, TemporalConfig
from nnunet_temporal.sequences import MANIFEST_NAME

DEFAULT_GPU_MEMORY_GB = 8
"""nnU-Net's own default."""


class TemporalPlanner(ExperimentPlanner):
    """Adds ``2dt`` to nnU-Net's own configurations; ``2d`` and ``3d_fullres`` stay as baselines on the same splits.

    Spatial topology, patch size, spacing and memory budget come from nnU-Net's planning of ``2d``. ``2dt`` reuses
    the preprocessed data of ``2d``: both resample in plane only, and time is never resampled.

    Attributes:
        manifest: The training sequences.
        explanations: After planning, one line per choice about time.
    """

    default_plans_name = "nnUNetTemporalPlans"
    max_labelled_frames_per_step: int | None = None

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = DEFAULT_GPU_MEMORY_GB,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str | None = None,
        overwrite_target_spacing: list[float] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        """Take nnU-Net's arguments; see ``ExperimentPlanner``. ``plans_name`` defaults to the planner's own."""
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name or self.default_plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        self.manifest = manifest_of(Path(self.raw_dataset_folder))
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
        """Derive ``2dt`` from the finished plan of ``2d``, explaining each choice in ``explanations``."""
        labelled = [sequence for sequence in self.manifest.values() if sequence.labelled_frames]
        clip = rules.plan_clip(labelled)
        stages = rules.plan_memory_stages(plan_2d["patch_size"], plan_2d["architecture"]["arch_kwargs"]["strides"])
        features = plan_2d["architecture"]["arch_kwargs"]["features_per_stage"]
        memory = rules.plan_memory_size([features[stage] for stage in stages.value])
        window = rules.plan_prediction_window(list(self.manifest.values()))
        clips = rules.plan_clips_per_step(plan_2d["batch_size"], clip.value.decoded_frames)
        geometry = rules.plan_geometry(list(self.dataset_json["channel_names"].values()), plan_2d["patch_size"])
        choices = (clip, clips, window, stages, memory, geometry)
        self.explanations = [choice.reason for choice in choices]
        temporal = TemporalConfig(
            clip_length=clip.value.clip_length,
            decoded_frames=clip.value.decoded_frames,
            frame_stride=clip.value.frame_stride,
            memory_stages=stages.value,
            heads=memory.value.heads,
            key_size=memory.value.key_size,
            value_size=memory.value.value_size,
            mirror_axes=geometry.value.mirror_axes,
            rotation_degrees=geometry.value.rotation_degrees,
            seed=12345,
        )
        plan = deepcopy(plan_2d)
        plan["patch_size"] = [window.value, *plan_2d["patch_size"]]
        plan["batch_size"] = clips.value
        plan["median_image_size_in_voxels"] = [
            float(np.median([sequence.n_frames for sequence in self.manifest.values()])),
            *plan_2d["median_image_size_in_voxels"],
        ]
        plan["architecture"] = sequence_architecture(plan["architecture"])
        return temporal.to_configuration(plan)


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


PLANNERS = {planner.__name__: planner for planner in (TemporalPlanner, LightTemporalPlanner)}
