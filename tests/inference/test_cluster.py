"""Workers of a cluster predict what one process does, past broken files and workers that die."""

import contextlib
import io
import os
import re
import sys
from functools import partial
from uuid import uuid4

import numpy as np
import pytest
import torch
from challenge_road import mask_paths
from phantom_dataset import movie
from trained_models import write_model

from nnunet_temporal.cli import main
from nnunet_temporal.commands.env import VARIABLE, search_path_folder
from nnunet_temporal.datasets.image_io import write_sequence
from nnunet_temporal.inference import cluster
from nnunet_temporal.inference.pipeline import StageClock
from nnunet_temporal.inference.prediction_jobs import SequenceJob, find_jobs
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM

MODEL = "nnUNetTrainerGDKVM__plans__2dt"
CASES = ("a", "b", "c", "d", "e")


class _FirstTime(SequenceJob):
    """Does something when it is read for the first time."""

    def read(self, model):
        marker = self.folder / f"{self.name}.read"
        if not marker.exists():
            marker.touch()
            self.happen()
        return super().read(model)

    def happen(self):
        """Do it."""


class KillsOnce(_FirstTime):
    def happen(self):
        os._exit(1)


class FailsOnce(_FirstTime):
    def happen(self):
        raise OSError("the network drive was away")


class KillsAlways(SequenceJob):
    def read(self, model):
        os._exit(1)


def torch_threads():
    """Return with how many threads a worker computes."""
    return torch.get_num_threads()


@pytest.fixture(scope="module")
def client():
    """Start two workers, which try a file twice."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(VARIABLE, str(search_path_folder()))
        with cluster.local_workers(2, retries=1) as client:
            yield client


@pytest.fixture
def work(nnunet_folders, tmp_path, findable_trainers):
    """Write a model and sequences; return the folder of both."""
    write_model(nnunet_folders.results / "Dataset777_Phantom" / MODEL, nnUNetTrainerGDKVM)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for seed, case in enumerate(CASES):
        write_sequence(movie(4, seed)[:, 0], (1.5, 1.25), tmp_path / "images" / f"{case}_0000.nii.gz")
    return tmp_path


def predict(work, output, *words):
    """Run the command on the CPU; return the exit code and what it printed on both channels."""
    model = ("-d", 777, "-tr", "nnUNetTrainerGDKVM", "-p", "plans", "-device", "cpu")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = main(["predict", "-i", str(work / "images"), "-o", str(work / output), *map(str, (*model, *words))])
    return code, printed.getvalue()


def on_workers(client, work, kinds, build=None, retries=1):
    """Predict the cases by workers, some by other jobs; return the problems and the masks that are there."""
    jobs = find_jobs(work / "images", work / "masks", ".nii.gz")
    jobs = [kinds.get(job.name, SequenceJob)(job.files, job.folder, job.name, job.ending) for job in jobs]
    build = build or partial(
        SequencePredictor.from_model_folder, work / "nnUNet_results" / "Dataset777_Phantom" / MODEL
    )
    outcomes = cluster.predict_on_workers(
        client, build, jobs, with_probabilities=False, retries=retries, clock=StageClock()
    )
    problems = [outcome.problem for outcome in outcomes if outcome.problem]
    return problems, {path.name.removesuffix(".nii.gz") for path in mask_paths(work / "masks")}


def build_and_count(folder, model):
    """Build a predictor and leave a file each time."""
    (folder / f"{uuid4()}.built").touch()
    return SequencePredictor.from_model_folder(model)


def test_workers_write_what_one_process_does_and_a_broken_file_stops_nobody(client, work):
    here = torch.get_num_threads()
    torch.set_num_threads(client.submit(torch_threads).result())  # other numbers of threads round otherwise
    assert predict(work, "alone", "--save_probabilities")[0] == 0
    torch.set_num_threads(here)
    broken = work / "images" / "b_0000.nii.gz"
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    words = ("--engine", "dask", "--scheduler", client.scheduler.address, "--save_probabilities", "--profile")
    code, printed = predict(work, "dealt", *words)
    assert code == 1
    assert "4 files predicted" in printed and "frames/s" in printed
    assert float(re.search(r"  network +([0-9.]+) s", printed)[1]) > 0
    assert "1 could not be predicted" in printed and printed.count(str(broken)) == 1
    assert not (work / "dealt" / "b.nii.gz").exists()
    done = {path.name: path.stat().st_mtime_ns for path in mask_paths(work / "dealt")}
    broken.write_bytes(content)
    code, printed = predict(work, "dealt", *words, "--continue_prediction")
    assert code == 0 and "1 files predicted" in printed
    assert all((work / "dealt" / name).stat().st_mtime_ns == then for name, then in done.items())
    for alone in mask_paths(work / "alone"):
        assert alone.read_bytes() == (work / "dealt" / alone.name).read_bytes(), alone.name
        ours, theirs = (
            np.load(work / folder / f"{alone.name.removesuffix('.nii.gz')}.npz")["probabilities"]
            for folder in ("alone", "dealt")
        )
        np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_a_worker_that_dies_and_a_file_that_fails_once_are_survived(client, work):
    problems, masks = on_workers(client, work, {"b": KillsOnce, "d": FailsOnce})
    assert not problems
    assert masks == set(CASES)


@pytest.mark.slow
def test_a_file_that_kills_every_worker_is_listed_and_no_other(client, work):
    problems, masks = on_workers(client, work, {"a": KillsAlways})
    assert len(problems) == 1 and "a_0000.nii.gz: 2 workers died" in problems[0]
    assert masks == set(CASES[1:])


def test_without_retries_a_file_that_fails_once_is_listed(client, work):
    problems, masks = on_workers(client, work, {"d": FailsOnce}, retries=0)
    assert problems == [f"{work / 'images' / 'd_0000.nii.gz'}: the network drive was away"]
    assert masks == set(CASES) - {"d"}


def test_a_worker_reads_the_model_once(client, work):
    model = work / "nnUNet_results" / "Dataset777_Phantom" / MODEL
    _, masks = on_workers(client, work, {}, partial(build_and_count, work, model))
    assert masks == set(CASES)
    assert 1 <= len(list(work.glob("*.built"))) <= 2


@pytest.mark.slow
def test_workers_are_started_where_none_are_named(work):
    code, printed = predict(work, "masks", "--engine", "dask", "--workers", 2)
    assert code == 0 and "5 files predicted" in printed
    assert len(mask_paths(work / "masks")) == 5


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 3])
def test_there_are_as_many_workers_as_asked_for_and_they_share_the_threads(number, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    with cluster.local_workers(number, retries=0) as client:
        workers = list(client.nthreads())
        futures = [client.submit(torch_threads, workers=[worker], pure=False) for worker in workers]
        assert client.gather(futures) == [6 // number] * number


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--workers", 3), "are for --engine dask"),
        (("--engine", "dask", "--workers", 0), "expected one or more"),
        (("--engine", "dask", "--retries", -1), "expected 0 or more"),
        (("--engine", "dask", "--scheduler", "tcp://127.0.0.1:9"), "found no Dask scheduler"),
    ],
)
def test_what_cannot_be_done_is_said(words, message, work, monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_S", 0.2)
    code, printed = predict(work, "masks", *words)
    assert code == 2
    assert message in printed


def test_an_installation_without_dask_says_how_to_get_it(work, monkeypatch):
    monkeypatch.delitem(sys.modules, cluster.__name__)
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, printed = predict(work, "masks", "--engine", "dask")
    assert code == 2
    assert "pip install 'nnunet_temporal[dask]'" in printed
