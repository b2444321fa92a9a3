"""Work ahead comes in order, with its errors, and never too far ahead; the clock counts every thread."""

import threading

import pytest

from nnunet_temporal.inference import pipeline
from nnunet_temporal.inference.pipeline import STAGES, StageClock, ahead


def test_items_come_in_order():
    assert list(ahead(range(10))) == list(range(10))
    assert list(ahead([])) == []


def test_items_are_made_in_another_thread_and_at_most_so_many_ahead():
    made, threads = [], set()

    def items():
        for number in range(10):
            made.append(number)
            threads.add(threading.get_ident())
            yield number

    for taken, _ in enumerate(ahead(items(), depth=3), start=1):
        assert len(made) <= taken + 3
    assert threading.get_ident() not in threads


def test_an_error_comes_in_its_turn():
    def items():
        yield 1
        yield 2
        raise ValueError("third")

    seen = []
    with pytest.raises(ValueError, match="third"):
        for item in ahead(items()):
            seen.append(item)
    assert seen == [1, 2]


def test_the_clock_adds_up_by_stage_even_when_a_stage_fails(monkeypatch):
    now = iter([0.0, 2.0, 10.0, 13.0])
    monkeypatch.setattr(pipeline.time, "perf_counter", lambda: next(now))
    clock = StageClock()
    for _ in range(2):
        with pytest.raises(KeyError), clock.stage("network"):
            raise KeyError
    assert clock.seconds == {**dict.fromkeys(STAGES, 0.0), "network": 5.0}
