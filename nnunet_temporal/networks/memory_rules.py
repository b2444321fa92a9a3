"""The ways to write a frame into the key-value memory, and the rows of GDKVM's comparison of update rules."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from nnunet_temporal.networks.memory_ops import (
    balanced_softmax,
    channel_softmax,
    explicit_transition,
    implicit_transition,
    published_transition,
    unit_norm,
)


def total(key_size: int, pixels: int) -> float:
    """Scale of a plain sum over the pixels."""
    return 1.0


def mean(key_size: int, pixels: int) -> float:
    """Scale of a mean over the pixels."""
    return 1 / pixels


def mean_per_direction(key_size: int, pixels: int) -> float:
    """Scale that gives the moment of unit-norm keys the trace D_k, so that its eigenvalues are 1 on average."""
    return key_size / pixels


class Mode(NamedTuple):
    """How a frame's keys are normalised, its sums over pixels scaled, and the two put into the state.

    Attributes:
        normalise: Maps raw keys (..., D_k, N) to keys.
        softmax: Whether that is a softmax, whose sharpness matters.
        scale: Factor of the moments, from D_k and N.
        transition: Update of the state, from moments and gates.
    """

    normalise: Callable[[Tensor], Tensor]
    softmax: bool
    scale: Callable[[int, int], float]
    transition: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


MODES = {
    # Unit-norm keys spread over all directions, where softmax keys leave one large eigenvalue and hardly write along
    # the others.
    "implicit": Mode(unit_norm, False, mean_per_direction, implicit_transition),
    "symmetric": Mode(balanced_softmax, True, mean, explicit_transition),
    "l2mean": Mode(unit_norm, False, mean, explicit_transition),
    "raw": Mode(channel_softmax, True, total, published_transition),
}
"""Ways to write a frame. All but "raw" are contractive for every input and do not depend on the resolution; "l2mean"
erases slowly, because the eigenvalues of its moment sum to 1."""


class Update(NamedTuple):
    """A row of GDKVM's table of update rules.

    Attributes:
        decays: Whether a is learned; else it is 1.
        gates_write: Whether b is learned; else it is 1.
        erases: Whether what the memory holds for a key is erased before the new value is written.
    """

    decays: bool
    gates_write: bool
    erases: bool


UPDATES = {
    "gated_delta": Update(decays=True, gates_write=True, erases=True),
    "delta": Update(decays=False, gates_write=True, erases=True),
    "replace": Update(decays=False, gates_write=False, erases=True),
    "decay": Update(decays=True, gates_write=False, erases=False),
    "additive": Update(decays=False, gates_write=False, erases=False),
}
"""The paper calls the rows GDR, b only, hard replace, a only and additive."""

GATE_SOURCES = ("frame", "state")


@dataclass(frozen=True)
class MemoryRule:
    """What a key-value memory does with a frame.

    Attributes:
        mode: How frames are written, a key of ``MODES``.
        update: Which parts of the gated delta rule there are, a key of ``UPDATES``.
        gate_source: What gates are projected from, "frame" for all frames at once or "state" for one after another.

    Raises:
        ValueError: One of them is unknown.
    """

    mode: str = "implicit"
    update: str = "gated_delta"
    gate_source: str = "frame"

    def __post_init__(self) -> None:
        check_option("mode", self.mode, MODES)
        check_option("update", self.update, UPDATES)
        check_option("gate_source", self.gate_source, GATE_SOURCES)


def check_option(name: str, value: str, known: Collection[str]) -> None:
    """Raise ValueError unless an option of this name has one of the known values."""
    if value not in known:
        raise ValueError(f"{name} must be one of {sorted(known)}, got {value!r}")


DEFAULT_RULE = MemoryRule()
