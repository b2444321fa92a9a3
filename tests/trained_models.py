"""Small models as nnU-Net leaves them, untrained but with weights of their own in every layer. Not a test."""

import contextlib
import io
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from phantom_dataset import INFO, LABELS
from test_plans import VALID

from nnunet_temporal.networks.build import sequence_architecture

PATCH = (48, 48)
DATASET = {"channel_names": {"0": INFO.channel}, "labels": LABELS, "numTraining": 4, "file_ending": ".nii.gz"}
REGIONS = {
    **DATASET,
    "labels": {"background": 0, "heart": [1, 2], "LV": 1, "ignore": 3},
    "regions_class_order": [2, 1],
}
TWO_CHANNELS = {**DATASET, "channel_names": {"0": "cineMRI", "1": "flow"}}
_ARCHITECTURE = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 4, "features_per_stage": [8, 12, 16, 24], "conv_op": "torch.nn.modules.conv.Conv2d",
        "kernel_sizes": [[3, 3]] * 4, "strides": [[1, 1], [2, 2], [2, 2], [2, 2]],
        "n_conv_per_stage": [1] * 4, "n_conv_per_stage_decoder": [1] * 3, "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}  # fmt: skip
_RESAMPLING = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": False}


def make_plans(channels: int = 1, frames: int = 16, **entries: Any) -> dict[str, Any]:
    """Return plans with configurations 2d and 2dt; ``entries`` replaces entries of both, as of ``temporal`` in 2dt."""
    temporal = {**VALID, "memory_stages": (2,), "frame_stride": 1, "mirror_axes": None}
    temporal.update({name: entries.pop(name) for name in list(entries) if name in temporal})
    common = {
        "data_identifier": "plans_2d", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "spacing": [1.25, 1.25], "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels, "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape", "resampling_fn_data_kwargs": _RESAMPLING,
        "resampling_fn_seg_kwargs": {**_RESAMPLING, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**_RESAMPLING, "order": 1}, "batch_dice": True, **entries,
    }  # fmt: skip
    return {
        "dataset_name": "Dataset777_Phantom", "plans_name": "plans", "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(c): {"mean": 110.0, "std": 30.0, "percentile_00_5": 60.0, "percentile_99_5": 155.0}
            for c in range(channels)
        },
        "configurations": {
            "2d": {**common, "patch_size": [*PATCH], "architecture": _ARCHITECTURE},
            "2dt": {
                **common, "patch_size": [frames, *PATCH], "architecture": sequence_architecture(_ARCHITECTURE),
                "temporal": {name: list(v) if isinstance(v, tuple) else v for name, v in temporal.items()}
                | {"reasons": []},
            },
        },
    }  # fmt: skip


def write_model(
    folder: Path,
    trainer: type[nnUNetTrainer],
    configuration: str = "2dt",
    folds: tuple[int | str, ...] = (0,),
    dataset: dict[str, Any] = DATASET,
    mirror_axes: tuple[int, ...] | None = None,
    **entries: Any,
) -> Path:
    """Write a model folder of a trainer; ``entries`` as in ``make_plans``. Return ``folder``."""
    dataset = deepcopy(dataset)
    plans = PlansManager(make_plans(len(dataset["channel_names"]), **entries))
    manager = plans.get_configuration(configuration)
    channels = determine_num_input_channels(plans, manager, dataset)
    for number, fold in enumerate(folds):
        torch.manual_seed(number)
        heads = plans.get_label_manager(dataset).num_segmentation_heads
        network = trainer.build_network_architecture(plans, manager, channels, heads, False)
        with torch.no_grad():
            # What ends in zeros, such as every memory, would hide whether it is driven as it should be.
            for parameter in network.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        file = folder / f"fold_{fold}" / "checkpoint_final.pth"
        file.parent.mkdir(parents=True)
        torch.save(
            {
                "network_weights": network.state_dict(), "trainer_name": trainer.__name__,
                "init_args": {"configuration": configuration}, "inference_allowed_mirroring_axes": mirror_axes,
            },
            file,
        )  # fmt: skip
    (folder / "plans.json").write_text(json.dumps(plans.plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


def stock_prediction(
    folder: Path, image: np.ndarray, pixel_mm: tuple[float, float], folds: tuple[int | str, ...] = (0,),
    mirror: bool = False,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Predict an image (C, T, Y, X) as ``nnUNetv2_predict`` does: masks (T, Y, X) and probabilities (K, T, Y, X)."""
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(use_mirroring=mirror, device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), folds)
        return predictor.predict_single_npy_array(
            image, {"spacing": [10.0, *pixel_mm]}, save_or_return_probabilities=True
        )


def pooled_dice(masks: np.ndarray, others: np.ndarray) -> float:
    """Return the Dice of all foreground labels together: an untrained network gives some label a handful of pixels."""
    both = np.sum((masks == others) & (masks > 0))
    return float(2 * both / (np.sum(masks > 0) + np.sum(others > 0)))
