"""One file per checkpoint: whole or absent, found by its epoch, and gone with its checkpoint."""

import pytest
import torch

from nnunet_temporal.errors import InputError
from nnunet_temporal.training.sidecar import load_sidecar, remove_stale_sidecars, save_sidecar, sidecar_path

CPU = torch.device("cpu")
STATE = {"teacher": None, "values": {"a": torch.arange(3), "rate": float("inf"), "shape": (1, 2)}}


@pytest.fixture
def checkpoint(tmp_path):
    return tmp_path / "checkpoint_latest.pth"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_is_loaded(checkpoint):
    save_sidecar(STATE, checkpoint, 7)
    loaded = load_sidecar(checkpoint, 7, CPU)
    assert loaded["epoch"] == 7 and loaded["teacher"] is None
    assert torch.equal(loaded["values"]["a"], torch.arange(3))
    assert loaded["values"]["rate"] == float("inf") and loaded["values"]["shape"] == (1, 2)


def test_nothing_but_the_sidecar_is_left(checkpoint):
    save_sidecar(STATE, checkpoint, 7)
    assert names(checkpoint.parent) == ["checkpoint_latest.epoch7.sidecar"]


def test_a_writing_that_fails_leaves_the_earlier_file(checkpoint, monkeypatch):
    save_sidecar({"n": 1}, checkpoint, 7)

    def torn(state, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        save_sidecar({"n": 2}, checkpoint, 7)
    assert names(checkpoint.parent) == ["checkpoint_latest.epoch7.sidecar"]
    assert load_sidecar(checkpoint, 7, CPU)["n"] == 1


def test_a_missing_sidecar_is_named(checkpoint):
    save_sidecar(STATE, checkpoint, 6)
    with pytest.raises(InputError, match=r"checkpoint_latest\.epoch7\.sidecar is missing.*Copy it"):
        load_sidecar(checkpoint, 7, CPU)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_a_broken_sidecar_is_named(checkpoint, content):
    sidecar_path(checkpoint, 7).write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint_latest\.epoch7\.sidecar: cannot be read.*start the training"):
        load_sidecar(checkpoint, 7, CPU)


def test_a_sidecar_cannot_run_code(checkpoint):
    torch.save({"epoch": 7, "state": checkpoint}, sidecar_path(checkpoint, 7))  # a path is an object of a class
    with pytest.raises(InputError, match="cannot be read"):
        load_sidecar(checkpoint, 7, CPU)


@pytest.mark.parametrize(("epoch", "left"), [(7, ["checkpoint_latest.epoch7.sidecar"]), (None, [])])
def test_stale_sidecars_are_removed_but_no_other_files(checkpoint, epoch, left):
    others = ["checkpoint_best.epoch6.sidecar", "checkpoint_latest.pth", "checkpoint_latest_copy.epoch6.sidecar"]
    for name in others:
        (checkpoint.parent / name).touch()
    for saved in (5, 6, 7, 70):
        save_sidecar(STATE, checkpoint, saved)
    remove_stale_sidecars(checkpoint, epoch)
    assert names(checkpoint.parent) == sorted([*others, *left])
