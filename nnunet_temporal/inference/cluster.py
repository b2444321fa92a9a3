"""Many files dealt out to the workers of a Dask cluster: each holds the model once, and what fails is tried again."""

import logging
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import cast
from uuid import uuid4

import dask
import torch
from distributed import Client, Future, KilledWorker, LocalCluster, Worker, WorkerPlugin, as_completed, get_worker

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.batch import Outcome, describe, predict_jobs
from nnunet_temporal.inference.pipeline import StageClock
from nnunet_temporal.inference.prediction_jobs import Job, Predictor

_CONNECT_S = 30


class _LocalWorker(WorkerPlugin):
    """Takes its share of the cores, and leaves Ctrl-C to the command, which then ends its workers without a word."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def setup(self, worker: Worker) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        torch.set_num_threads(self._threads)


class _Resident(WorkerPlugin):
    """Keeps one predictor in a worker process, made for its first file and shared by its threads."""

    def __init__(self, build: Callable[[], Predictor]) -> None:
        self._build = build

    def setup(self, worker: Worker) -> None:
        self._lock = Lock()
        self._predictor: Predictor | None = None

    def predictor(self) -> Predictor:
        with self._lock:
            if self._predictor is None:
                self._predictor = self._build()
            return self._predictor


@contextmanager
def local_workers(number: int, retries: int) -> Iterator[Client]:
    """Start worker processes on this machine, which share its cores, and end them after the block.

    Args:
        number: How many.
        retries: How often a file is tried again whose worker died.
    """
    # Dask would end workers that take more than their share of the memory, of which a long movie may need more.
    options = {"n_workers": number, "threads_per_worker": 1, "memory_limit": 0}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": retries}),
        LocalCluster(dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL, **options) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(_LocalWorker(max(1, torch.get_num_threads() // number)))
        yield client


@contextmanager
def existing_workers(address: str) -> Iterator[Client]:
    """Connect to a cluster that runs already; after the block it goes on without us.

    Its own ``distributed.scheduler.allowed-failures`` says how often a file is tried again whose worker died.

    Args:
        address: Of its scheduler, such as ``tcp://host:8786``.

    Raises:
        InputError: There is no scheduler, or it has no workers.
    """
    try:
        client = Client(address, timeout=_CONNECT_S)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{address}: found no Dask scheduler; expected one such as tcp://host:8786: {error}"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, _CONNECT_S)
        except TimeoutError as error:
            raise InputError(f"{address}: the scheduler has no workers; start some: dask worker {address}") from error
        yield client


def predict_on_workers(
    client: Client,
    build: Callable[[], Predictor],
    jobs: Sequence[Job],
    *,
    with_probabilities: bool,
    retries: int,
    clock: StageClock,
) -> Iterator[Outcome]:
    """Predict jobs by the workers of a cluster, which see the same files under the same paths.

    Args:
        client: Connection to the cluster.
        build: Makes the predictor, once in every worker process.
        jobs: What to predict, a task each.
        with_probabilities: Whether to keep probabilities.
        retries: How often a job that fails is tried again.
        clock: Counts the seconds of each stage, over all workers.

    Yields:
        The outcome of each job when it is done, in any order.
    """
    resident = f"nnunet_temporal-{uuid4()}"
    client.register_plugin(_Resident(build), resident)
    waiting, running, done = deque(jobs), dict[Future, Job](), as_completed(loop=client.loop)
    try:
        while waiting or running:
            # No more than are worked on: Dask suspects every file that waits at a worker when it dies.
            for _ in range(min(len(waiting), max(1, sum(client.nthreads().values())) - len(running))):
                job = waiting.popleft()
                there = replace(job, files=tuple(file.absolute() for file in job.files), folder=job.folder.absolute())
                arguments = there, resident, with_probabilities
                future = client.submit(_predict_one, *arguments, retries=retries, pure=False)
                running[future] = there
                done.add(future)
            future = next(done)
            yield _outcome(running.pop(future), future, clock)
    finally:
        client.cancel(list(running))
        client.unregister_worker_plugin(resident)


def _predict_one(job: Job, resident: str, with_probabilities: bool) -> tuple[Outcome, dict[str, float]]:
    """Predict a job in a worker; return its outcome and the seconds of each stage."""
    clock = StageClock()
    predictor = cast(_Resident, get_worker().plugins[resident]).predictor()
    (outcome,) = predict_jobs(predictor, [job], with_probabilities=with_probabilities, clock=clock)
    if outcome.problem is not None:
        raise RuntimeError(outcome.problem)  # for Dask to try again
    return outcome, clock.seconds


def _outcome(job: Job, future: Future, clock: StageClock) -> Outcome:
    try:
        outcome, seconds = future.result()
    except KilledWorker as error:
        return Outcome(0, f"{job.files[0]}: {error.allowed_failures + 1} workers died of it, or lacked memory")
    except Exception as error:
        return Outcome(0, describe(job, error))
    clock.add(seconds)
    return outcome
