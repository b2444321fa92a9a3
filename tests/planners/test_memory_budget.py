"""The predicted memory of a training step: exact where a hand can count, close to what a real step allocates."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode

from nnunet_temporal.planners.memory_budget import LiveBytes, StepMemory, training_memory
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "training_memory.py"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def benchmark():
    """Import the benchmark, which knows how to make plans and to measure a real step."""
    specification = importlib.util.spec_from_file_location("training_memory_benchmark", BENCHMARK)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def case(benchmark):
    """Return a small plan: four of eight frames are segmented."""
    return benchmark.Case(
        residual=False,
        features=16,
        patch_size=(32, 32),
        clip_length=8,
        decoded_frames=4,
        clips=4,
        channels=1,
        classes=3,
    )


def parameter_count(benchmark, case) -> int:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nnUNet_preprocessed", "nnUNet_results", "nnUNet_compile"):
            patch.setenv(name, "set by the benchmark")
        return sum(parameter.numel() for parameter in benchmark.build_trainer(case, CPU).network.parameters())


def test_a_storage_counts_once_from_the_operation_that_makes_it_to_its_last_view():
    with LiveBytes() as live:
        numbers = torch.zeros(1000)
        view = numbers.view(10, 100)[2:]
        view.add_(1)
        assert live.alive.total() == 4000
        doubled = view * 2
        assert live.alive.total() == 4000 + 3200
        del numbers, doubled
        assert live.alive.total() == 4000
        del view
        assert live.alive.total() == 0
        assert live.peak.total() == 7200


@pytest.mark.parametrize("mode", [FakeTensorMode, torch.enable_grad])
def test_the_peak_of_a_backward_pass_is_what_a_hand_counts(mode):
    # x, exp(x), exp(exp(x)) and every gradient take 4000 bytes, of which at most four live at a time: autograd drops
    # exp(exp(x)) when it has used it, before it makes the gradient of x. The sum and its gradient take 4.
    with mode(), LiveBytes() as live:
        x = torch.zeros(1000, requires_grad=True)
        loss = x.exp().exp().sum()
        assert live.alive.total() == 3 * 4000 + 4
        loss.backward()
    assert live.peak.total() == 4 * 4000 + 4 + 4


def test_what_a_part_made_is_told_apart_and_the_peak_can_start_anew():
    with FakeTensorMode(), LiveBytes() as live:
        torch.zeros(1000)
        weights = torch.zeros(10)
        live.start()
        live.part = "loss"
        loss = weights.exp()
    assert dict(live.peak) == {"weights": 40, "loss": 40}
    assert loss.shape == (10,)


def test_the_total_is_the_sum_of_the_parts():
    assert StepMemory(1, 20, 300, 4000, 50000, 600000).total == 654321


def test_parameters_count_with_their_momentum_and_those_gradients_that_exist_at_the_peak(benchmark, case):
    parameters = 4 * parameter_count(benchmark, case)
    assert 2 * parameters < benchmark.predict(case, autocast=False).weights < 3 * parameters


def test_the_memory_of_context_is_what_its_frames_bring_to_the_temporal_module(benchmark, case):
    clips = [replace(case, clip_length=length) for length in (8, 16, 32)]
    eight, sixteen, thirty_two = (benchmark.predict(clip, autocast=False) for clip in clips)
    # The encoder's other features of a context frame are gone when the next one comes.
    assert thirty_two.total - sixteen.total == pytest.approx(2 * (sixteen.total - eight.total), rel=0.02)
    per_context_frame = (thirty_two.total - sixteen.total) / 16
    assert per_context_frame < 0.25 * eight.decoded_frames / case.decoded_frames


def test_everything_but_the_weights_is_linear_in_the_number_of_clips(benchmark, case):
    totals = [benchmark.predict(replace(case, clips=clips), autocast=False).total for clips in (8, 16, 32)]
    assert totals[2] - totals[1] == 2 * (totals[1] - totals[0])


def test_a_context_frame_costs_something_but_less_than_a_segmented_one(benchmark, case):
    all_segmented = benchmark.predict(replace(case, decoded_frames=8), autocast=False)
    half_segmented = benchmark.predict(case, autocast=False)
    shorter = benchmark.predict(replace(case, clip_length=4), autocast=False)
    assert shorter.total < half_segmented.total < all_segmented.total
    # Only segmented frames have something kept by encoder and decoder; the memory keeps something for all frames.
    assert 2 * half_segmented.decoded_frames == all_segmented.decoded_frames
    assert half_segmented.temporal_modules > 1.7 * shorter.temporal_modules


def semi_supervised(benchmark, case, unlabelled_clips, window_frames) -> StepMemory:
    configuration = benchmark.plan(case)
    configuration["temporal"].update(unlabelled_clips=unlabelled_clips, window_frames=window_frames)
    build = nnUNetTrainerGDKVM.build_temporal_module
    return training_memory(
        configuration,
        case.channels,
        case.classes,
        lambda channels, temporal: build(channels, temporal, case.classes),
        watch_first=nnUNetTrainerGDKVM.watch_first,
        autocast=False,
        semi_supervised=True,
    )


def test_a_semi_supervised_step_holds_a_teacher_and_its_two_passes_one_after_the_other(benchmark, case):
    supervised = benchmark.predict(case, autocast=False)
    as_many = semi_supervised(benchmark, case, case.clips, case.decoded_frames)
    parameters = 4 * parameter_count(benchmark, case)
    # Weights, momentum, the first pass's gradients, the teacher.
    assert as_many.weights == pytest.approx(4 * parameters, rel=0.01)
    assert as_many.decoded_frames == supervised.decoded_frames
    assert as_many.context_frames == supervised.context_frames
    assert as_many.temporal_modules == supervised.temporal_modules


def test_the_unlabelled_clips_count_when_they_are_more_than_the_labelled_ones(benchmark, case):
    totals = [semi_supervised(benchmark, case, clips, 4).total for clips in (1, 16, 32, 48)]
    assert totals[3] - totals[2] == totals[2] - totals[1] > 0
    assert totals[0] < totals[1]


def test_autocast_halves_activations_but_not_weights(benchmark, case):
    wide = replace(case, clips=16)
    full, half = (benchmark.predict(wide, autocast=autocast) for autocast in (False, True))
    assert 0.5 < half.decoded_frames / full.decoded_frames < 0.6
    assert half.weights == full.weights


def test_predicting_allocates_nothing_of_the_size_and_draws_no_random_number(benchmark, case):
    before = torch.get_rng_state()
    predicted = benchmark.predict(replace(case, patch_size=(256, 256), clips=100_000), autocast=True)
    assert predicted.total > 10**13
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "changes",
    [
        {"patch_size": (32, 24), "decoded_frames": 2, "clip_length": 2},
        {"residual": True, "channels": 3, "classes": 2},
        {"clip_length": 16, "decoded_frames": 1, "classes": 4},
    ],
)
def test_a_real_step_allocates_what_was_predicted(benchmark, case, monkeypatch, changes):
    for name in ("nnUNet_preprocessed", "nnUNet_results", "nnUNet_compile"):
        monkeypatch.setenv(name, "set by the benchmark")
    changed = replace(case, **changes)
    _, measured = benchmark.measure(changed, CPU, autocast=False)
    assert 0.9 * measured < benchmark.predict(changed, autocast=False).total < 1.25 * measured
