"""Hands the weights of a trained 2D network to a temporal trainer, which goes on from there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from torch import Tensor, nn

from nnunet_temporal.atomic import write_json
from nnunet_temporal.errors import InputError
from nnunet_temporal.networks.build import build_frame_network
from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal

START = "checkpoint_latest.pth"
"""The checkpoint nnU-Net continues an unfinished training from."""

_FRAMES = 2
# Of the largest logit. Rounding stays well below, a module that is not zero-initialised well above.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Inflation:
    """What became of a network's parameters and buffers.

    Attributes:
        loaded: Number of tensors taken from the 2D network: all it has.
        new: Number of tensors it does not have, those of the temporal modules.
        difference: Largest difference of the logits to the 2D network's, relative to the largest logit.
    """

    loaded: int
    new: int
    difference: float


def inflate(trainer: nnUNetTrainerTemporal, weights: Mapping[str, Tensor]) -> Inflation:
    """Load the weights of a 2D network, heads included, and check that nothing but they is at work.

    Args:
        trainer: A new trainer; it is initialised here.
        weights: All parameters and buffers of the trained 2D network.

    Raises:
        InputError: The weights are not those of the planned 2D network.
        ValueError: The trainer's network does not start as its 2D network.
    """
    trainer.initialize()
    frame_network = _frame_network(trainer, weights)
    network: nn.Module = trainer.network
    own = network.state_dict()
    if missing := sorted(set(weights) - set(own)):
        raise ValueError(f"{type(network).__name__} has no place for {missing[:3]} of the 2D network")
    network.load_state_dict({**own, **weights})
    return Inflation(len(weights), len(own) - len(weights), _largest_difference(trainer, frame_network))


def save_start(trainer: nnUNetTrainerTemporal) -> Path:
    """Save a trainer that has not taken a step, so that nnU-Net can continue from epoch 0, and predict with it.

    Checkpoints of an earlier training in its folder are removed: nnU-Net would continue from its last one.

    Returns:
        The checkpoint.
    """
    # In a training these come with the first batch; to predict, nnU-Net reads them from the checkpoint.
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    folder = Path(trainer.output_folder)
    write_json(trainer.plans_manager.plans, folder.parent / "plans.json")
    write_json(trainer.dataset_json, folder.parent / "dataset.json")
    # nnU-Net saves at the end of an epoch, and writes down the number of the next.
    trainer.current_epoch = -1
    trainer.save_checkpoint(str(folder / START))
    trainer.current_epoch = 0
    for name in ("checkpoint_final*", "checkpoint_best*"):
        for file in folder.glob(name):
            file.unlink()
    return folder / START


def _frame_network(trainer: nnUNetTrainerTemporal, weights: Mapping[str, Tensor]) -> nn.Module:
    """Build the 2D network of the trainer's plans and load the weights into it, all of them."""
    configuration = trainer.configuration_manager
    channels = determine_num_input_channels(trainer.plans_manager, configuration, trainer.dataset_json)
    heads = trainer.label_manager.num_segmentation_heads
    network = build_frame_network(configuration.configuration["architecture"], channels, heads, deep_supervision=False)
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if wrong := sorted(name for name in expected | found if expected.get(name) != found.get(name)):
        first = wrong[0]
        raise InputError(
            f"{len(wrong)} of {len(expected)} tensors are not those of the planned 2D network, such as {first}: found "
            f"{found.get(first, 'none')}, expected {expected.get(first, 'none')}. Only networks as the plans describe "
            "them can be inflated, not those a trainer has changed"
        )
    network.load_state_dict(weights)
    return network.to(trainer.device).eval()


@torch.inference_mode()
def _largest_difference(trainer: nnUNetTrainerTemporal, frame_network: nn.Module) -> float:
    """Segment the same noise with both networks."""
    generator = torch.Generator().manual_seed(trainer.temporal.seed)
    size = (1, trainer.num_input_channels, _FRAMES, *trainer.configuration_manager.patch_size[1:])
    frames = torch.randn(size, generator=generator).to(trainer.device)
    trainer.set_deep_supervision_enabled(False)
    network: nn.Module = trainer.network.eval()
    expected = frame_network(frames[0].transpose(0, 1)).transpose(0, 1)[None]
    difference = float((network(frames) - expected).abs().max() / expected.abs().max())
    network.train()
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    # Not "greater": NaN must fail as well.
    if not difference <= _TOLERANCE:
        raise ValueError(
            f"{type(trainer).__name__} does not start as its 2D network: logits differ by {difference:g} of the "
            "largest. Its temporal modules have to end in zero-initialised projections on residual paths"
        )
    return difference
