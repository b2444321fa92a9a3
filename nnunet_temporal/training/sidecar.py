"""What a training keeps beside nnU-Net's checkpoint, whose contents are fixed: one file per checkpoint."""

from pathlib import Path
from typing import Any

import torch

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.errors import InputError


def sidecar_path(checkpoint: Path, epoch: int) -> Path:
    """Return the file that belongs to a checkpoint of an epoch.

    The epoch is in the name because two files cannot be replaced at once: a training that is killed between them leaves
    the old checkpoint and, besides the new sidecar, the old one.
    """
    return checkpoint.with_name(f"{checkpoint.stem}.epoch{epoch}.sidecar")


def save_sidecar(state: dict[str, Any], checkpoint: Path, epoch: int) -> None:
    """Write the sidecar of a checkpoint that is about to be written."""
    with atomic_path(sidecar_path(checkpoint, epoch)) as temporary:
        torch.save({"epoch": epoch, **state}, temporary)


def load_sidecar(checkpoint: Path, epoch: int, device: torch.device) -> dict[str, Any]:
    """Read the sidecar of a checkpoint of an epoch.

    Raises:
        InputError: It is missing or broken.
    """
    path = sidecar_path(checkpoint, epoch)
    advice = "Copy it beside the checkpoint, or start the training anew."
    if not path.is_file():
        raise InputError(
            f"{path} is missing: a semi-supervised training goes on with the teacher and the pseudo-labels it had. "
            f"{advice}"
        )
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises whatever the archive makes it stumble over
        raise InputError(f"{path}: cannot be read: {error!r}. {advice}") from error


def remove_stale_sidecars(checkpoint: Path, epoch: int | None) -> None:
    """Remove a checkpoint's sidecars but that of ``epoch``; None: the checkpoint is gone, all of them."""
    kept = None if epoch is None else sidecar_path(checkpoint, epoch)
    for path in checkpoint.parent.glob(f"{checkpoint.stem}.epoch*.sidecar"):
        if path != kept:
            path.unlink()
