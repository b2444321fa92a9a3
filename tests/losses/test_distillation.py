"""The divergence from teachers, by hand, and beside nnU-Net's loss."""

import math

import pytest
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import nn

from nnunet_temporal.losses.distillation import Divergence, SoftTarget, TaughtLoss

B, K, D, Y, X = 2, 3, 2, 3, 4


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_counted():
    return noise(B, 1, D, Y, X, seed=9) > 0


def reference(student, teachers, counted, exclusive):
    """Pixel by pixel, in the precision of the arguments."""
    total, number = 0.0, 0
    for b, _, d, y, x in counted.nonzero().tolist():
        ours, theirs = student[b, :, d, y, x], teachers[b, :, d, y, x]
        if exclusive:
            p, q = theirs.softmax(0), ours.softmax(0)
            total = total + sum(p[k] * (p[k] / q[k]).log() for k in range(K))
        else:
            p, q = theirs.sigmoid(), ours.sigmoid()
            for k in range(K):
                total = total + p[k] * (p[k] / q[k]).log() + (1 - p[k]) * ((1 - p[k]) / (1 - q[k])).log()
        number += 1
    return total / number


@pytest.mark.parametrize("exclusive", [True, False])
def test_values_and_gradients_are_those_of_a_plain_loop(exclusive):
    student, teachers, counted = noise(B, K, D, Y, X), 2 * noise(B, K, D, Y, X, seed=1), some_counted()
    found, expected = (student.clone().requires_grad_() for _ in range(2))
    loss = Divergence(exclusive=exclusive)(found, SoftTarget(teachers, counted))
    plain = reference(expected, teachers, counted, exclusive)
    torch.testing.assert_close(loss.double(), plain, rtol=1e-5, atol=1e-7)
    loss.backward()
    plain.backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-7)


def test_two_classes_by_hand():
    # Teachers are sure by 3 : 1, the student by 1 : 1.
    teachers = torch.tensor([math.log(3.0), 0.0]).view(1, 2, 1, 1, 1)
    target = SoftTarget(teachers, torch.ones(1, 1, 1, 1, 1, dtype=torch.bool))
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(Divergence(exclusive=True)(torch.zeros(1, 2, 1, 1, 1), target)) == pytest.approx(expected)


def test_one_region_by_hand():
    teachers = torch.full((1, 1, 1, 1, 1), math.log(3.0))
    target = SoftTarget(teachers, torch.ones(1, 1, 1, 1, 1, dtype=torch.bool))
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(Divergence(exclusive=False)(torch.zeros(1, 1, 1, 1, 1), target)) == pytest.approx(expected)


@pytest.mark.parametrize("exclusive", [True, False])
def test_who_agrees_loses_nothing_and_stays(exclusive):
    student = noise(B, K, D, Y, X).requires_grad_()
    loss = Divergence(exclusive=exclusive)(student, SoftTarget(student.detach(), some_counted()))
    loss.backward()
    assert loss.abs() < 1e-6 and student.grad.abs().max() < 1e-7


@pytest.mark.parametrize("exclusive", [True, False])
def test_certain_answers_stay_finite(exclusive):
    student = torch.full((1, 2, 1, 1, 1), 200.0).requires_grad_()
    teachers = torch.tensor([-200.0, 200.0]).view(1, 2, 1, 1, 1)
    loss = Divergence(exclusive=exclusive)(student, SoftTarget(teachers, torch.ones(1, 1, 1, 1, 1, dtype=torch.bool)))
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all() and student.grad.abs().max() > 0.4


def test_pixels_that_do_not_count_change_nothing():
    student, teachers, counted = noise(B, K, D, Y, X), noise(B, K, D, Y, X, seed=1), some_counted()
    elsewhere = torch.where(counted, teachers, noise(B, K, D, Y, X, seed=2))
    loss = Divergence(exclusive=True)
    assert loss(student, SoftTarget(teachers, counted)) == loss(student, SoftTarget(elsewhere, counted))


def test_where_nothing_counts_there_is_a_zero_with_a_graph():
    student = noise(B, K, D, Y, X).requires_grad_()
    loss = Divergence(exclusive=True)(student, SoftTarget(noise(B, K, D, Y, X), ~torch.ones(B, 1, D, Y, X).bool()))
    loss.backward()
    assert loss == 0 and torch.equal(student.grad, torch.zeros_like(student))


class MeanOfMasked(nn.Module):
    """Stands for the loss on labels."""

    def forward(self, output, target):
        return (output * target).mean()


@pytest.mark.parametrize("deep", [True, False])
def test_the_divergence_at_full_resolution_is_added_to_the_loss_on_labels(deep):
    scales = [noise(B, K, D, Y, X), noise(B, K, D, 2, 2, seed=3)]
    labels = [noise(B, 1, D, Y, X, seed=4), noise(B, 1, D, 2, 2, seed=5)]
    soft = SoftTarget(noise(B, K, D, Y, X, seed=1), some_counted())
    supervised = DeepSupervisionWrapper(MeanOfMasked(), (0.7, 0.3)) if deep else MeanOfMasked()
    loss = TaughtLoss(supervised, 0.5, exclusive=True)
    output, alone = (scales, labels) if deep else (scales[0], labels[0])
    both = loss(output, [*labels, soft] if deep else [alone, soft])
    expected = supervised(output, alone) + 0.5 * Divergence(exclusive=True)(scales[0], soft)
    assert both == expected
    # As in validation, where nobody teaches.
    assert loss(output, alone) == supervised(output, alone)


def test_a_soft_target_moves_as_one():
    moved = SoftTarget(torch.zeros(1), torch.zeros(1, dtype=torch.bool)).to(torch.device("meta"), non_blocking=True)
    assert isinstance(moved, SoftTarget) and {part.device.type for part in moved} == {"meta"}
