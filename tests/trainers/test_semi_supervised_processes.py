"""Semi-supervised training on two processes: the same pseudo-labels as on one, and the same weights on both.

nnU-Net's own distributed training is impossible on a CPU: its trainer asks for a CUDA device as soon as a process group
exists, and its command starts NCCL. So here a trainer is constructed first; then two processes meet through gloo, and
wrap the network as nnU-Net does, but without device ids. What is tested is our part: rounds, steps and logging.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from phantom_dataset import Phantom
from semi_supervised import (
    equal,
    nnUNetTrainerAllCSTM,
    nnUNetTrainerAllNCMNet,
    parameters,
    quietly,
    remember_squares,
    remembered,
    short_trainer,
)
from torch.nn.parallel import DistributedDataParallel

from nnunet_temporal.trainers.semi_supervised import SemiSupervised
from nnunet_temporal.trainers.temporal_semi import nnUNetTrainerTemporalSemi
from nnunet_temporal.training.window_losses import LOSSES

pytestmark = pytest.mark.slow

PROCESSES, SECONDS = 2, 120
METHODS = (nnUNetTrainerTemporalSemi, nnUNetTrainerAllNCMNet, nnUNetTrainerAllCSTM)


@dataclass(frozen=True)
class Meeting:
    """Where two processes find the phantom and each other, and leave what they found."""

    phantom: Phantom
    folder: Path
    environment: dict[str, str]


def awake(trainer: SemiSupervised) -> None:
    """Make a teacher that says something else of every sequence; the same on all processes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.teacher.network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)


def two_rounds(trainer: SemiSupervised) -> dict:
    """Let two different teachers predict; return what is remembered."""
    for _ in range(2):
        awake(trainer)
        with quietly():
            trainer.run_round()
    return {"memory": remembered(trainer), "values": trainer.round_values}


def prepared(phantom: Phantom, method: type[SemiSupervised]) -> SemiSupervised:
    """Return a trainer that is ready for its first epoch."""
    trainer = short_trainer(phantom, method)
    with quietly():
        trainer.on_train_start()
    return trainer


def distribute(trainer: SemiSupervised, rank: int) -> None:
    """Do what nnU-Net does at its start if there is a process group."""
    trainer.is_ddp, trainer.local_rank = True, rank
    trainer.network = DistributedDataParallel(trainer.network)
    # With the group known, its Dice gathers all batches, and the coarsest output has a weight.
    trainer.loss = trainer._build_loss()


def step_together(trainer: SemiSupervised) -> dict:
    """Take two steps on batches that differ between processes; return what is left of them."""
    with quietly():
        trainer.on_train_epoch_start()
        trainer.dataloader_train, _ = trainer.get_dataloaders()
        remember_squares(trainer)
        results = [trainer.train_step(next(trainer.dataloader_train)) for _ in range(2)]
        trainer.on_train_epoch_end(results)
    return {
        "network": parameters(trainer.network),
        "teacher": parameters(trainer.teacher.network),
        "losses": [float(result["pseudo_label_losses"]) for result in results],
        "logged": [trainer.logger.get_value(key, -1) for key in LOSSES],
    }


def take_part(rank: int, meeting: Meeting) -> None:
    """Be one of the processes."""
    os.environ.update(meeting.environment)
    torch.set_num_threads(1)
    trainers = [prepared(meeting.phantom, method) for method in METHODS]
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting.folder / 'group'}",
        rank=rank,
        world_size=PROCESSES,
        timeout=timedelta(seconds=SECONDS),
    )
    for trainer in trainers:
        distribute(trainer, rank)
    found = {"rounds": two_rounds(trainers[0])}
    for trainer in trainers:
        found[type(trainer).__name__] = step_together(trainer)
    torch.save(found, meeting.folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def meeting(planned_phantom, tmp_path_factory) -> Meeting:
    """Share one results folder; nothing else is written."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "nnUNet_results").mkdir()
    environment = {
        "nnUNet_raw": str(planned_phantom.raw.parent),
        "nnUNet_preprocessed": str(planned_phantom.preprocessed.parent),
        "nnUNet_results": str(folder / "nnUNet_results"),
        "OMP_NUM_THREADS": "1",
    }
    return Meeting(planned_phantom, folder, environment)


@pytest.fixture(scope="module")
def both(meeting) -> list[dict]:
    """Let two processes meet; return what each found."""
    multiprocessing.spawn(take_part, (meeting,), PROCESSES)
    return [torch.load(meeting.folder / f"{rank}.pt", weights_only=False) for rank in range(PROCESSES)]


@pytest.fixture
def alone(meeting, monkeypatch) -> dict:
    """Play the same rounds in this process."""
    for name, value in meeting.environment.items():
        monkeypatch.setenv(name, value)
    return two_rounds(prepared(meeting.phantom, METHODS[0]))


def test_two_processes_remember_what_one_remembers(both, alone, meeting):
    assert set(alone["memory"]) == set(meeting.phantom.splits()[0]["train"])
    assert both[0]["rounds"] == both[1]["rounds"] == alone
    assert len({str(entry["labels"]) for entry in alone["memory"].values()}) > 1
    assert 0 < alone["values"]["teacher_agreements"] < 1


@pytest.mark.parametrize("method", METHODS)
def test_steps_on_different_batches_leave_the_same_weights_and_log_on_both(both, method):
    ours, others = (found[method.__name__] for found in both)
    assert equal(ours["network"], others["network"]) and equal(ours["teacher"], others["teacher"])
    assert all(parameter.isfinite().all() for parameter in ours["network"])
    assert ours["losses"] != others["losses"]
    assert ours["logged"] == others["logged"]
    mean = sum(ours["losses"] + others["losses"]) / 4
    assert ours["logged"][LOSSES.index("pseudo_label_losses")] == pytest.approx(mean)
