"""Bootstrapped cross entropy: its schedule, its hardest pixels, and nothing from pixels nobody labelled."""

import math

import pytest
import torch
from torch.nn import functional

from nnunet_temporal.losses.bootstrapped import BootstrappedCrossEntropy, SumOfLosses, hardest_fraction, mean_of_hardest

B, K, T, Y, X = 2, 3, 2, 5, 4
IGNORE = 3


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(ignored=0.3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(K, (B, 1, T, Y, X), generator=generator)
    return drawn.masked_fill(torch.rand(drawn.shape, generator=generator) < ignored, IGNORE).short()


def loss_at(progress, ignore=IGNORE, regions=False):
    return BootstrappedCrossEntropy(lambda: progress, ignore_label=ignore, has_regions=regions)


def reference(pixel_loss, counted, fraction):
    """Average frame by frame: sort, keep, mean; pixel_loss(b, t, y, x)."""
    means = []
    for b in range(B):
        for t in range(T):
            losses = [pixel_loss(b, t, y, x) for y in range(Y) for x in range(X) if counted[b, t, y, x]]
            kept = sorted(losses, key=lambda loss: -loss.item())[: math.ceil(fraction * len(losses))]
            means += [sum(kept) / len(kept)] if kept else []
    return sum(means) / len(means)


@pytest.mark.parametrize(
    ("progress", "fraction"),
    [(0, 1), (0.13, 1), (0.3, 0.575), (0.47, 0.15), (1, 0.15)],
)
def test_the_schedule_is_plain_then_a_ramp_then_the_hardest_pixels(progress, fraction):
    assert hardest_fraction(progress) == pytest.approx(fraction)


def test_the_schedule_is_that_of_stcn_in_shares_of_its_iterations():
    for iteration, fraction in ((19_000, 1), (45_000, 1 - 0.85 / 2), (71_000, 0.15)):
        assert hardest_fraction(iteration / 150_000) == pytest.approx(fraction, abs=0.01)


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_labels_equal_the_loop_reference_in_values_and_gradients(progress):
    logits, target = noise(B, K, T, Y, X).requires_grad_(), labels()

    def pixel_loss(b, t, y, x):
        return functional.cross_entropy(logits[b, :, t, y, x].float(), target[b, 0, t, y, x].long())

    ours = loss_at(progress)(logits, target)
    expected = reference(pixel_loss, target[:, 0] != IGNORE, hardest_fraction(progress))
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, expected)))


@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_regions_equal_the_loop_reference_and_their_last_channel_is_ignored(progress):
    logits = noise(B, K, T, Y, X)
    target = noise(B, K + 1, T, Y, X, seed=3) > 0.3

    def pixel_loss(b, t, y, x):
        place = (b, slice(K), t, y, x)
        return functional.binary_cross_entropy_with_logits(logits[place].float(), target[place].float())

    expected = reference(pixel_loss, ~target[:, K], hardest_fraction(progress))
    torch.testing.assert_close(loss_at(progress, regions=True)(logits, target), expected)
    everywhere = reference(pixel_loss, torch.ones_like(target[:, 0]), hardest_fraction(progress))
    torch.testing.assert_close(loss_at(progress, None, regions=True)(logits, target[:, :K]), everywhere)


def test_at_the_start_it_is_plain_cross_entropy():
    logits, target = noise(B, K, T, Y, X).float(), labels(ignored=0)
    torch.testing.assert_close(loss_at(0, None)(logits, target), functional.cross_entropy(logits, target[:, 0].long()))


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_ignored_pixels_change_nothing_and_get_no_gradient(progress):
    logits, target = noise(B, K, T, Y, X).requires_grad_(), labels()
    ignored = (target == IGNORE).expand_as(logits)
    loss = loss_at(progress)(logits, target)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[ignored] == 0).all()
    assert torch.equal(loss_at(progress)(logits.where(~ignored, 50 * noise(*logits.shape, seed=7)), target), loss)


@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_a_frame_without_labels_has_no_part_and_none_at_all_gives_a_finite_zero(progress):
    logits, target = noise(B, K, T, Y, X).requires_grad_(), labels(ignored=0)
    target[:, :, 1] = IGNORE
    first = [part[:, :, :1] for part in (logits, target)]
    torch.testing.assert_close(loss_at(progress)(logits, target), loss_at(progress)(*first))
    nothing = loss_at(progress)(logits, torch.full_like(target, IGNORE))
    nothing.backward()
    assert nothing == 0
    assert (logits.grad == 0).all()


def test_the_hardest_pixels_are_those_of_each_image_not_of_the_batch():
    losses, counted = torch.tensor([[9.0, 8, 7, 6], [4, 3, 2, 1]]), torch.ones(2, 4, dtype=torch.bool)
    assert mean_of_hardest(losses, counted, 0.5) == (8.5 + 3.5) / 2
    counted[0, 0] = False
    assert mean_of_hardest(losses, counted, 0.5) == (7.5 + 3.5) / 2  # two of three: rounded up


def test_half_precision_logits_are_handled_in_float32():
    logits, target = noise(B, K, T, Y, X).bfloat16(), labels()
    loss = loss_at(1.0)(logits, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, loss_at(1.0)(logits.float(), target))


def test_losses_add_up():
    logits, target = noise(B, K, T, Y, X), labels()
    parts = [loss_at(0.0), loss_at(1.0)]
    torch.testing.assert_close(SumOfLosses(*parts)(logits, target), sum(part(logits, target) for part in parts))
