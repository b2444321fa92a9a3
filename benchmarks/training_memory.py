"""Does the planner predict the memory that a training step takes?

Ten plans, plain and residual, light and default, go through two steps of the real trainer (network, nnU-Net's loss,
backward pass, optimiser) on random clips, and the second step is measured. On a CPU: PyTorch's profiler records every
allocation and release of its allocator; their running sum, begun at what exists before the step (parameters, momentum,
batch), has the peak. Beside it, "saved": what autograd saved in the first step, each storage once, with parameters,
gradients, momentum and batch; gradients are counted in full although at the peak most do not exist yet. On CUDA:
``torch.cuda.max_memory_allocated``; that branch has never been run. torch.compile stays off.

    OMP_NUM_THREADS=2 python benchmarks/training_memory.py --output memory.json
    OMP_NUM_THREADS=2 python benchmarks/training_memory.py --autocast --output memory_autocast.json

The second line checks mixed precision, which nnU-Net uses on CUDA only, with a CPU's bfloat16. With one thread PyTorch
leaves some convolutions to plainer code, which makes no copies. "seconds" is what a prediction takes. Needs 5 GB.
"""

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunet_temporal.atomic import write_json
from nnunet_temporal.networks.build import sequence_architecture
from nnunet_temporal.planners.memory_budget import StepMemory, training_memory
from nnunet_temporal.plans import TEMPORAL_CONFIGURATION, TemporalConfig
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM

DATASET = "Dataset999_Random"


@dataclass(frozen=True)
class Case:
    """One plan: the numbers that memory depends on."""

    residual: bool
    features: int
    patch_size: tuple[int, int]
    clip_length: int
    decoded_frames: int
    clips: int
    channels: int
    classes: int


CASES = (
    Case(False, 16, (64, 64), 4, 2, 8, 1, 2),
    Case(False, 16, (128, 128), 8, 2, 4, 3, 4),
    Case(False, 16, (256, 256), 4, 2, 2, 1, 4),
    Case(False, 16, (96, 96), 32, 1, 8, 3, 2),
    Case(True, 16, (128, 128), 16, 2, 2, 1, 4),
    Case(False, 32, (64, 64), 32, 2, 2, 1, 4),
    Case(False, 32, (128, 128), 8, 4, 4, 3, 2),
    Case(False, 32, (256, 192), 4, 2, 2, 1, 4),
    Case(True, 32, (128, 128), 4, 2, 4, 1, 4),
    Case(True, 32, (256, 256), 4, 2, 2, 3, 2),
)


def plan(case: Case) -> dict[str, Any]:
    """Return configuration ``2dt`` as the planner would write it: stages down to an edge of about four pixels."""
    stages = min(case.patch_size).bit_length() - 2
    features = [min(case.features * 2**stage, 16 * case.features) for stage in range(stages)]
    arguments: dict[str, Any] = {
        "n_stages": stages,
        "features_per_stage": features,
        "conv_op": "torch.nn.modules.conv.Conv2d",
        "kernel_sizes": [[3, 3]] * stages,
        "strides": [[1, 1], *[[2, 2]] * (stages - 1)],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    if case.residual:
        arguments |= {
            "n_blocks_per_stage": [1, 3, 4, 6, 6, 6, 6][:stages],
            "n_conv_per_stage_decoder": [1] * (stages - 1),
        }
    else:
        arguments |= {"n_conv_per_stage": [2] * stages, "n_conv_per_stage_decoder": [2] * (stages - 1)}
    network = "ResidualEncoderUNet" if case.residual else "PlainConvUNet"
    architecture = {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{network}",
        "arch_kwargs": arguments,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    stage = stages - 2  # eight pixels or more
    size = features[stage] // 8
    temporal = TemporalConfig(
        clip_length=case.clip_length, decoded_frames=case.decoded_frames, frame_stride=1, memory_stages=(stage,),
        heads=4, key_size=size, value_size=size, matching_patch=4, matching_top_k=4,
        neighbourhood=(3, 5, 5), unlabelled_clips=1, window_frames=1, mirror_axes=None, rotation_degrees=15.0, seed=0,
    )  # fmt: skip
    return temporal.to_configuration(
        {
            "architecture": sequence_architecture(architecture),
            "spacing": [1.0, 1.0],
            "patch_size": [case.clip_length, *case.patch_size],
            "batch_size": case.clips,
            "batch_dice": True,
            "data_identifier": "random",
        }
    )


def predict(case: Case, autocast: bool) -> StepMemory:
    """Predict the peak of a plan's training step."""
    return training_memory(
        plan(case),
        case.channels,
        case.classes,
        lambda channels, temporal: nnUNetTrainerGDKVM.build_temporal_module(channels, temporal, case.classes),
        watch_first=nnUNetTrainerGDKVM.watch_first,
        autocast=autocast,
    )


def build_trainer(case: Case, device: torch.device) -> nnUNetTrainerGDKVM:
    """Construct the trainer as ``nnUNetv2_train`` does, without a dataset."""
    plans = {
        "dataset_name": DATASET,
        "plans_name": "random",
        "continue_training": False,
        "configurations": {TEMPORAL_CONFIGURATION: plan(case)},
    }
    dataset = {
        "channel_names": {str(channel): "cineMRI" for channel in range(case.channels)},
        "labels": {"background": 0, **{f"class{label}": label for label in range(1, case.classes)}},
        "file_ending": ".nii.gz",
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.environ.update(nnUNet_preprocessed=folder, nnUNet_results=folder, nnUNet_compile="f")
        (Path(folder) / DATASET / "random").mkdir(parents=True)
        (Path(folder) / DATASET / "random" / "case.b2nd").touch()  # tells nnU-Net the format of the cases
        trainer = nnUNetTrainerGDKVM(plans, TEMPORAL_CONFIGURATION, 0, dataset, device)
        trainer.initialize()
    return trainer


def random_batch(case: Case, scales: Iterable[Iterable[float]]) -> dict[str, Any]:
    """Return a batch as ``ClipLoader`` makes it; a last label is to be ignored."""
    generator = torch.Generator().manual_seed(0)
    decoded = torch.arange(case.decoded_frames).expand(case.clips, -1).clone()
    targets = []
    for scale in scales:
        size = [round(n * s) for n, s in zip((case.decoded_frames, *case.patch_size), scale, strict=True)]
        labels = torch.randint(0, case.classes + 1, (case.clips, 1, *size), generator=generator)
        targets.append(labels.to(torch.int16))
    return {
        "data": torch.randn(case.clips, case.channels, case.clip_length, *case.patch_size, generator=generator),
        "target": targets,
        "valid": torch.ones(case.clips, case.clip_length, dtype=torch.bool),
        "decoded": decoded,
    }


def standing_bytes(trainer: nnUNetTrainerGDKVM, batch: dict[str, Any]) -> int:
    """Add up what exists between two steps: parameters, gradients, momentum and the batch."""
    tensors = [tensor for value in batch.values() for tensor in (value if isinstance(value, list) else [value])]
    for parameter in trainer.network.parameters():
        momentum = trainer.optimizer.state[parameter].get("momentum_buffer")  # the lowest output has no loss
        tensors += [tensor for tensor in (parameter, parameter.grad, momentum) if tensor is not None]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def saved_bytes(trainer: nnUNetTrainerGDKVM, batch: dict[str, Any]) -> int:
    """Make a step and add up what autograd saved for its backward pass, each storage once, parameters apart."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trainer.train_step(batch)
    for tensor in [*trainer.network.parameters(), batch["data"]]:
        sizes.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(sizes.values())


def allocation_peak(trainer: nnUNetTrainerGDKVM, batch: dict[str, Any]) -> int:
    """Make a step and return the highest number of bytes allocated in it."""
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        trainer.train_step(batch)
        return torch.cuda.max_memory_allocated()
    # What was allocated before, the profiler does not see freed, so last step's gradients must go first.
    trainer.optimizer.zero_grad(set_to_none=True)
    allocated = peak = standing_bytes(trainer, batch)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        trainer.train_step(batch)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak


def measure(case: Case, device: torch.device, autocast: bool) -> tuple[int, int]:
    """Return what two real steps take in bytes: saved by the first, with all that stands; and the second's peak."""
    trainer = build_trainer(case, device)
    batch = random_batch(case, trainer._get_deep_supervision_scales())
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast and device.type == "cpu"):
        saved = saved_bytes(trainer, batch)
        return saved + standing_bytes(trainer, batch), allocation_peak(trainer, batch)


def main() -> None:
    """Predict, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--autocast", action="store_true", help="mixed precision on a CPU too")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    autocast = arguments.autocast or device.type == "cuda"
    print("network   features   patch  clip decoded clips C K | predicted  saved measured MB | ratio seconds")
    rows = []
    for case in CASES:
        start = time.perf_counter()
        predicted = predict(case, autocast)
        seconds = time.perf_counter() - start
        saved, measured = measure(case, device, autocast)
        ratio = predicted.total / measured
        rows.append(
            {**asdict(case), **asdict(predicted), "predicted": predicted.total, "saved": saved, "measured": measured}
            | {"ratio": ratio, "seconds": seconds}
        )
        height, width = case.patch_size
        print(
            f"{'residual' if case.residual else 'plain':9} {case.features:8} {height:4}x{width:3} {case.clip_length:4}"
            f" {case.decoded_frames:7} {case.clips:5} {case.channels} {case.classes} |"
            f" {predicted.total / 1e6:9.0f} {saved / 1e6:6.0f} {measured / 1e6:8.0f}    | {ratio:5.3f} {seconds:7.2f}",
            flush=True,
        )
    write_json(
        {"device": str(device), "autocast": autocast, "torch": torch.__version__, "rows": rows}, arguments.output
    )


if __name__ == "__main__":
    main()
