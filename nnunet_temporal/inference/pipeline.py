"""What keeps prediction fast and says where its time goes: work ahead in a thread, and a clock per stage."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

Item = TypeVar("Item")
_END = object()

STAGES = ("read", "resample", "network", "post-process", "write")


def ahead(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """Yield items that a thread makes while the caller works on earlier ones; errors arrive in their turn.

    Args:
        items: Whatever is iterated over in the thread.
        depth: How many finished items may wait.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, iterator, _END) for _ in range(depth))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(thread.submit(next, iterator, _END))
            yield item  # type: ignore[misc]  # the end, which is no item, is not yielded


class StageClock:
    """Adds up the seconds that each stage takes; stages in threads overlap, so that their sum may exceed the time.

    Attributes:
        seconds: Seconds by stage of ``STAGES``.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._lock = Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add({name: time.perf_counter() - start})

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count seconds by stage that were measured elsewhere."""
        with self._lock:
            for name, more in seconds.items():
                self.seconds[name] += more
