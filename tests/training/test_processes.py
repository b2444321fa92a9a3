"""Items are dealt out to the processes of a training once each; loaders with processes of their own are ended."""

import pytest
import torch.distributed as dist
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter

from nnunet_temporal.training.processes import from_all_processes, own_share, stop_loader


def test_a_process_alone_deals_with_everything():
    assert own_share([3, 1, 2]) == [3, 1, 2]
    assert from_all_processes("mine") == ["mine"]


@pytest.mark.parametrize("items", [[], [1], list(range(7))])
def test_every_item_is_dealt_with_by_one_process(items, monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        shares += own_share(items)
    assert sorted(shares) == items


class Endless:
    """Yields the same batch for ever."""

    def set_thread_id(self, thread_id):
        """Ignore which process this is."""

    def __iter__(self):
        return self

    def __next__(self):
        return {"data": 0}


def test_the_processes_of_a_loader_are_ended():
    loader = MultiThreadedAugmenter(Endless(), None, 1, wait_time=0.002)
    next(loader)
    (process,) = loader._processes
    assert process.is_alive()
    stop_loader(loader)
    assert not process.is_alive()


def test_no_loader_has_no_processes_to_end():
    stop_loader(None)
