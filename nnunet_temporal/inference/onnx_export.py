"""Export of a trained model to ONNX: the step of a stream, and a sidecar with all that comes before and after it."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_temporal.atomic import atomic_path, write_json
from nnunet_temporal.datasets.image_io import T_SPACING
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.label_values import mask_type
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.onnx_files import FORMAT, SIDECAR_FILE, STEP_FILE
from nnunet_temporal.inference.onnx_step import FRAME, LOGITS, OPSET, StepGraph, write_step
from nnunet_temporal.inference.stream_networks import as_stream
from nnunet_temporal.inference.windows import OVERLAP
from nnunet_temporal.networks.temporal_unet import TemporalUNet
from nnunet_temporal.training.stock_model import CHECKPOINT, cross_validation_folds

_PACKAGES = ("nnunet_temporal", "nnunetv2", "torch", "onnx", "onnxscript")


def export_model(folder: Path, output: Path, fold: int | str | None = None, checkpoint_name: str = CHECKPOINT) -> float:
    """Write ``step.onnx`` and ``model.json`` of one fold of a model.

    Args:
        folder: ``TRAINER__PLANS__CONFIGURATION``.
        output: Where to write; made when missing.
        fold: The fold; None takes the only one that is trained.
        checkpoint_name: File in the folder of the fold.

    Returns:
        The largest difference between the logits of torch and of onnxruntime over a few frames of noise.

    Raises:
        InputError: There are several folds, the network cannot be exported, a package is not installed, or see
            ``TrainedModel.read``.
    """
    fold = _only_fold(folder, checkpoint_name) if fold is None else fold
    model = TrainedModel.read(folder, None if fold is None else [fold], checkpoint_name)
    graph = StepGraph(model.networks[0], model.channels, model.patch)
    source = {"model": folder.resolve().name, "fold": fold, "checkpoint": checkpoint_name}
    sidecar = describe(model, graph, source)
    output.mkdir(parents=True, exist_ok=True)
    with atomic_path(output / STEP_FILE) as temporary:
        difference = write_step(graph, temporary)
    write_json(sidecar, output / SIDECAR_FILE)
    return difference


def describe(model: TrainedModel, graph: StepGraph, source: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``model.json``; documentation/how_to/export_to_onnx.md explains each field."""
    network = model.networks[0]
    stream = as_stream(network)
    size = list(graph.example.shape)
    return {
        "format": FORMAT,
        "source": {
            "dataset": model.plans.dataset_name,
            **source,
            "plans": model.plans.plans_name,
            "versions": {package: version(package) for package in _PACKAGES},
            "opset": OPSET,
        },
        "frame": {"name": FRAME, "shape": size, "dtype": "float32", "spacing_mm": list(model.configuration.spacing)},
        "logits": {
            "name": LOGITS,
            "shape": [1, model.labels.num_segmentation_heads, *size[2:]],
            "dtype": "float32",
        },
        "states": [{**state._asdict(), "initial": 0} for state in graph.states],
        "delay": stream.delay,
        "frame_stride": stream.frame_stride,
        "watch_first": stream.watch_first,
        "skips_blank": isinstance(network, TemporalUNet),
        "channels": _channels(model),
        "resampling": {
            "time_spacing": T_SPACING,
            "frames": _resampling(model, "resampling_fn_data"),
            "logits": _resampling(model, "resampling_fn_probabilities"),
        },
        "window_overlap": OVERLAP,
        "labels": _labels(model),
    }


def _only_fold(folder: Path, checkpoint_name: str) -> int | str | None:
    folds = cross_validation_folds(folder, checkpoint_name)
    if len(folds) > 1:
        raise InputError(
            f"{folder}: has folds {folds}, and one file holds one network; choose one with -f, or distil the folds "
            "into one network first (documentation/how_to/distil_an_ensemble.md)"
        )
    return folds[0] if folds else None


def _channels(model: TrainedModel) -> list[dict[str, Any]]:
    schemes, within_mask = model.configuration.normalization_schemes, model.configuration.use_mask_for_norm
    foreground = model.plans.foreground_intensity_properties_per_channel
    names = model.dataset["channel_names"]
    return [
        {"name": names[str(c)], "normalisation": scheme, "within_mask": inside, "foreground": foreground[str(c)]}
        for c, (scheme, inside) in enumerate(zip(schemes, within_mask, strict=True))
    ]


def _resampling(model: TrainedModel, entry: str) -> dict[str, Any]:
    arguments = model.configuration.configuration[f"{entry}_kwargs"]
    return {"function": model.configuration.configuration[entry], **arguments}


def _labels(model: TrainedModel) -> dict[str, Any]:
    labels = model.labels
    values = labels.regions_class_order if labels.has_regions else labels.all_labels
    return {
        "names": model.dataset["labels"],
        "regions": labels.has_regions,
        "values": [int(value) for value in values],
        "dtype": np.dtype(mask_type(labels)).name,
    }
