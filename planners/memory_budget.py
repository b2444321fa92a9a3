"""What memory a training step of configuration ``2dt`` will need: found by running one that computes nothing.

The real network, nnU-Net's loss and optimiser go through a whole step on fake tensors, which have shape, type and
lifetime but no data, while the bytes of all living tensors are added up. Where the step peaks follows from that and
need not be known beforehand: usually early in the backward pass, when all that the decoder saved is still there and
gradients of full-resolution maps join it; with a large network and small clips in the optimiser.

Not included, because only a device knows them: workspaces inside an operation (cuDNN may take some hundred MB when it
tries algorithms out), the gaps an allocator leaves, and the CUDA context.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss
from nnunetv2.utilities.helpers import softmax_helper_dim1
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunet_temporal.networks.build import build_frame_network, build_temporal_network
from nnunet_temporal.networks.temporal_module import TemporalModule
from nnunet_temporal.networks.temporal_unet import Clip, TemporalUNet
from nnunet_temporal.plans import TemporalConfig


@dataclass(frozen=True)
class StepMemory:
    """Bytes alive at the peak of a training step, by what made them.

    Attributes:
        weights: Parameters, their momentum, and those of their gradients that exist at the peak.
        decoded_frames: What encoder and decoder hold for the frames that are segmented.
        context_frames: What the encoder holds for the other frames.
        temporal_modules: What the temporal modules hold, and the features of all frames gathered for them.
        batch_and_loss: Images, targets, and the loss's copies of the logits at all its resolutions.
        transient: Gradients on their way back, and temporaries of the optimiser.
    """

    weights: int
    decoded_frames: int
    context_frames: int
    temporal_modules: int
    batch_and_loss: int
    transient: int

    @property
    def total(self) -> int:
        """The peak, in bytes."""
        return sum(vars(self).values())


def training_memory(
    configuration: Mapping[str, Any],
    input_channels: int,
    output_channels: int,
    build_module: Callable[[int, TemporalConfig], TemporalModule],
    *,
    watch_first: bool,
    autocast: bool,
    semi_supervised: bool = False,
) -> StepMemory:
    """Predict the peak memory of a training step, eager and on one device; nothing of that size is allocated.

    A semi-supervised step makes a second pass, over the unlabelled clips, when the gradients of the first are there,
    and beside a teacher's weights. What its losses compute besides nnU-Net's is not included.

    Args:
        configuration: Configuration ``2dt`` of the plans.
        input_channels: Image channels C.
        output_channels: Logits per pixel K: classes with background. Regions take nnU-Net's other loss, which is of
            about the same size.
        build_module: Makes the temporal module for features of the given number of channels.
        watch_first: See ``TemporalUNet``.
        semi_supervised: Whether the step is a semi-supervised trainer's.
        autocast: Whether activations take two bytes, as nnU-Net trains on CUDA, or four, as on a CPU.

    Raises:
        InputError: The configuration is not a temporal one.
        ValueError: A memory stage does not exist.
    """
    temporal = TemporalConfig.from_configuration(configuration)
    live = LiveBytes()
    with FakeTensorMode(), live:
        network = build_temporal_network(
            build_frame_network(configuration["architecture"], input_channels, output_channels, True),
            temporal.memory_stages,
            lambda channels: build_module(channels, temporal),
            watch_first=watch_first,
        )
        optimizer = _optimizer_with_momentum(network)
        sizes, teacher = [(configuration["batch_size"], temporal.decoded_frames)], []
        if semi_supervised:
            sizes.append((temporal.unlabelled_clips, temporal.window_frames))
            teacher += [parameter.detach().clone() for parameter in network.parameters()]
        live.attribute(network)
        live.part = "batch_and_loss"
        batches = [_batch(configuration, input_channels, *size, temporal.context_frames) for size in sizes]
        live.start()
        _step(network, optimizer, batches, live, autocast)
    return StepMemory(**{name: live.peak[name] for name in StepMemory.__dataclass_fields__})


class LiveBytes(TorchDispatchMode):
    """Adds up the storages alive inside it, by the part of the step that made them, and keeps the highest sum.

    A storage counts once, however many tensors view it, from the operation that returns it to the end of its last
    tensor; what autograd saves lives on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.part = "weights"
        self.alive: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self._parts: dict[int, str] = {}

    def __torch_dispatch__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever the operation returns
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        if self.alive.total() > self.peak.total():
            self.peak = self.alive.copy()
        return result

    def start(self) -> None:
        """Forget the peak so far."""
        self.peak = self.alive.copy()

    def attribute(self, network: TemporalUNet) -> None:
        """Tell from now on what the network makes by the parts that make it, and count gradients as weights.

        What neither encoder nor decoder makes belongs to the temporal modules.
        """
        encoded: list[str] = []

        def enter_encoder(*_: object) -> None:
            self.part = "context_frames" if encoded else "decoded_frames"
            encoded.append(self.part)

        def enter_decoder(*_: object) -> None:
            self.part = "decoded_frames"
            encoded.clear()

        def leave(*_: object) -> None:
            self.part = "temporal_modules"

        network.encoder.register_forward_pre_hook(enter_encoder)
        network.decoder.register_forward_pre_hook(enter_decoder)
        network.encoder.register_forward_hook(leave)
        for parameter in network.parameters():
            parameter.register_post_accumulate_grad_hook(self._move_gradient)

    def _move_gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            storage = parameter.grad.untyped_storage()
            self.alive[self._parts[id(storage)]] -= storage.nbytes()
            self.alive["weights"] += storage.nbytes()
            self._parts[id(storage)] = "weights"

    def _add(self, storage: torch.UntypedStorage) -> None:
        if id(storage) not in self._parts:
            self._parts[id(storage)] = self.part
            self.alive[self.part] += storage.nbytes()
            weakref.finalize(storage, self._remove, id(storage), storage.nbytes()).atexit = False

    def _remove(self, key: int, size: int) -> None:
        self.alive[self._parts.pop(key)] -= size


def _optimizer_with_momentum(network: nn.Module) -> torch.optim.Optimizer:
    """Return nnU-Net's optimiser after a first step, in the form it has on CUDA, which copies the gradients."""
    optimizer = torch.optim.SGD(
        network.parameters(), 0.01, momentum=0.99, weight_decay=3e-5, nesterov=True, foreach=True
    )
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return optimizer


def _batch(
    configuration: Mapping[str, Any], input_channels: int, clips: int, decoded_frames: int, context_frames: int
) -> tuple[Clip, list[Tensor]]:
    """Return clips and their targets at the resolutions of deep supervision, as the clip loader makes them."""
    frames = decoded_frames + context_frames
    size = list(configuration["patch_size"][1:])
    images = torch.zeros(clips, input_channels, frames, *size)
    valid = torch.ones(clips, frames, dtype=torch.bool)
    decoded = torch.zeros(clips, decoded_frames, dtype=torch.long)
    targets = []
    for stride in configuration["architecture"]["arch_kwargs"]["strides"][:-1]:
        size = [pixels // step for pixels, step in zip(size, stride[1:], strict=True)]
        targets.append(torch.zeros(clips, 1, decoded_frames, *size, dtype=torch.int16))
    return Clip(images, valid, decoded), targets


def _step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: list[tuple[Clip, list[Tensor]]],
    live: LiveBytes,
    autocast: bool,
) -> None:
    """Run nnU-Net's training step, with a pass forwards and backwards for each batch."""
    for clip, targets in batches:
        logits: list[Tensor] = []  # those of the pass before are gone when the next begins
        live.part = "temporal_modules"
        # Fake tensors of a CPU, because a machine without CUDA has no autocast for any other; bfloat16 is as large.
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            logits = network(clip)
            live.part = "batch_and_loss"
            loss = _loss(logits, targets)
        live.part = "transient"
        loss.backward()
    optimizer.step()


def _loss(logits: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Add up nnU-Net's loss over the resolutions of deep supervision, of which the last has no weight.

    The parts of ``DC_and_CE_loss``, because the whole looks at the values of the targets, and fake ones have none.
    """
    dice = MemoryEfficientSoftDiceLoss(softmax_helper_dim1, batch_dice=False, do_bg=False, ddp=False)
    cross_entropy = RobustCrossEntropyLoss(ignore_index=-1)
    losses = []
    for scale, target in list(zip(logits, targets, strict=True))[: max(1, len(logits) - 1)]:
        mask = target != -1
        # CUDA's autocast computes softmax and cross-entropy in float32, each from a copy of its own; a CPU's does not.
        overlap = dice(scale.float(), torch.where(mask, target, 0), loss_mask=mask)
        losses.append(cross_entropy(scale.float(), target[:, 0]) + overlap)
    return torch.stack(losses).sum()
