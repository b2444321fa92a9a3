"""Semi-supervised trainers of single steps on the phantom, shared by tests. Not a test."""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from phantom_dataset import LABELS, Phantom, make_trainer

from nnunet_temporal.trainers.cstm import nnUNetTrainerCSTM
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM
from nnunet_temporal.trainers.mssnet import nnUNetTrainerMSSNet
from nnunet_temporal.trainers.ncmnet import nnUNetTrainerNCMNet
from nnunet_temporal.trainers.semi_supervised import SemiSupervised
from nnunet_temporal.trainers.temporal_semi import nnUNetTrainerTemporalSemi
from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal
from nnunet_temporal.training.pseudo_labels import PseudoLabels

IGNORE = LABELS["ignore"]


class nnUNetTrainerAllMSSNet(nnUNetTrainerMSSNet):
    """With every part."""

    boundary_weight = 0.1


class nnUNetTrainerAllNCMNet(nnUNetTrainerNCMNet):
    """With every part, beside a refinement head."""

    pseudo_label_weight = 1.0
    contrastive_weight = 0.1
    cross_mix_probability = 0.5


class nnUNetTrainerAllCSTM(SemiSupervised, nnUNetTrainerCSTM):
    """With every part, on a network that decodes frame by frame."""

    boundary_weight = 0.1
    pseudo_label_weight = 1.0
    contrastive_weight = 0.1
    cross_mix_probability = 0.5


class nnUNetTrainerSilent(SemiSupervised, nnUNetTrainerGDKVM):
    """With no part at all, but unlabelled batches."""


ALL = (nnUNetTrainerTemporalSemi, nnUNetTrainerAllMSSNet, nnUNetTrainerAllNCMNet, nnUNetTrainerAllCSTM)


def twin_of(trainer: type[SemiSupervised]) -> type[nnUNetTrainerTemporal]:
    """Return the supervised trainer that the mixin was mixed into."""
    _, supervised = trainer.__bases__
    return supervised


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Drop what nnU-Net prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def short_trainer(
    phantom: Phantom, trainer: type[SemiSupervised] = nnUNetTrainerTemporalSemi, epochs: int = 1, **temporal: object
) -> SemiSupervised:
    """Construct a trainer of one step per epoch, of two unlabelled clips."""
    made = make_trainer(trainer, phantom, **{"unlabelled_clips": 2, **temporal})
    made.num_epochs, made.save_every = epochs, 1
    made.num_iterations_per_epoch = made.num_val_iterations_per_epoch = 1
    return made


def started(phantom: Phantom, trainer: type[SemiSupervised] = nnUNetTrainerTemporalSemi, **options: object):
    """Return a trainer in the first epoch of its training."""
    made = short_trainer(phantom, trainer, **options)
    with quietly():
        made.on_train_start()
        made.on_train_epoch_start()
    return made


def make_regions(phantom: Phantom) -> None:
    """Turn the phantom into a dataset whose labels are regions."""
    path = phantom.preprocessed / "dataset.json"
    regions = {"background": 0, "epicardium": [1, 2], "LV": [1], "ignore": IGNORE}
    path.write_text(json.dumps({**json.loads(path.read_text()), "labels": regions, "regions_class_order": [2, 1]}))


def remember_squares(trainer: SemiSupervised, confidence: float = 1.0) -> None:
    """Let the pseudo-label of every case be nested squares, whatever it was."""
    dataset, _ = trainer.get_tr_and_val_datasets()
    trainer.pseudo_labels.load_state_dict(PseudoLabels().state_dict())
    judged = trainer.pseudo_labels.start_round()
    for case in dataset.identifiers:
        shape = dataset.load_case(case)[1].shape[1:]
        labels = np.zeros(shape, np.uint8)
        labels[:, 8:30, 8:30] = 2
        labels[:, 14:24, 14:24] = 1
        judged.add(case, labels, np.full(shape, confidence, np.float32), ())
    judged.close()


def parameters(network: torch.nn.Module) -> list[torch.Tensor]:
    """Copy all parameters."""
    return [parameter.detach().clone() for parameter in network.parameters()]


def equal(ones: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    """Tell whether tensors are equal bit by bit."""
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


def remembered(trainer: SemiSupervised) -> dict:
    """Everything about the pseudo-labels, comparable by ``==``."""
    return {
        case: {name: getattr(value, "tolist", lambda value=value: value)() for name, value in entry.items()}
        for case, entry in trainer.pseudo_labels.state_dict()["cases"].items()
    }


def files(trainer: SemiSupervised) -> set[str]:
    """Return the names of checkpoints and sidecars."""
    return {path.name for path in Path(trainer.output_folder).glob("checkpoint_*")}
