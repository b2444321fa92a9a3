"""The loss on pseudo-labels: pixel by pixel as weighted as they are trusted, nothing from ignored ones."""

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

from nnunet_temporal.losses.memberships import memberships_of
from nnunet_temporal.losses.pseudo_label import PseudoLabelLoss

B, K, T, Y, X = 2, 3, 2, 4, 3
SMOOTH = 1e-5


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def targets(seed=1):
    return torch.rand(B, K, T, Y, X, generator=torch.Generator().manual_seed(seed)).softmax(1)


def weights(seed=2):
    drawn = torch.rand(B, 1, T, Y, X, generator=torch.Generator().manual_seed(seed))
    return drawn.where(drawn > 0.3, torch.zeros_like(drawn))


def loss_of(exclusive, batch_dice):
    return PseudoLabelLoss(exclusive=exclusive, batch_dice=batch_dice)


def dice_loss(logits, memberships, weight, exclusive, clips):
    """One minus the Dice of some clips, mean over foreground channels."""
    terms = []
    for k in range(1 if exclusive else 0, K):
        shared = sizes = 0
        for b in clips:
            probability = logits[b].softmax(0)[k] if exclusive else logits[b, k].sigmoid()
            shared = shared + (weight[b, 0] * probability * memberships[b, k]).sum()
            sizes = sizes + (weight[b, 0] * probability).sum() + (weight[b, 0] * memberships[b, k]).sum()
        terms.append(1 - (2 * shared + SMOOTH) / (sizes + SMOOTH))
    return sum(terms) / len(terms)


def reference(logits, memberships, weight, exclusive, batch_dice):
    """Pixel by pixel in float64."""
    entropy = total = 0
    for place in ((b, t, y, x) for b in range(B) for t in range(T) for y in range(Y) for x in range(X)):
        b, t, y, x = place
        pixel, member = logits[b, :, t, y, x], memberships[b, :, t, y, x]
        if exclusive:
            loss = -sum(member[k] * (pixel[k] - pixel.exp().sum().log()) for k in range(K))
        else:
            p = 1 / (1 + (-pixel).exp())
            loss = -sum(member[k] * p[k].log() + (1 - member[k]) * (1 - p[k]).log() for k in range(K))
        entropy, total = entropy + weight[b, 0, t, y, x] * loss, total + weight[b, 0, t, y, x]
    if batch_dice:
        return entropy / total + dice_loss(logits, memberships, weight, exclusive, range(B))
    shares = [weight[b].sum() / total for b in range(B)]
    return entropy / total + sum(
        share * dice_loss(logits, memberships, weight, exclusive, [b]) for b, share in enumerate(shares)
    )


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("batch_dice", [True, False])
def test_the_loss_equals_the_loop_reference_in_values_and_gradients(exclusive, batch_dice):
    logits, memberships, weight = noise(B, K, T, Y, X).requires_grad_(), targets(), weights()
    ours = loss_of(exclusive, batch_dice)(logits, memberships, weight)
    expected = reference(logits.double(), memberships.double(), weight.double(), exclusive, batch_dice)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_dice", [True, False])
def test_with_weights_of_one_and_zero_it_is_nnunets_loss(batch_dice):
    logits = noise(1, K, T, Y, X)
    labels = torch.randint(K + 1, (1, 1, T, Y, X), generator=torch.Generator().manual_seed(3))
    dice = {"batch_dice": batch_dice, "smooth": SMOOTH, "ddp": False}
    stock = DC_and_CE_loss({**dice, "do_bg": False}, {}, ignore_label=K, dice_class=MemoryEfficientSoftDiceLoss)
    memberships, known = memberships_of(labels, K, ignore_label=K)
    ours = loss_of(True, batch_dice)(logits, memberships, known)
    torch.testing.assert_close(ours, stock(logits, labels) + 1)
    regions = [(1, 2), 1, 2]
    memberships, known = memberships_of(labels, K, ignore_label=K, regions=regions)
    stock = DC_and_BCE_loss({}, {**dice, "do_bg": True}, use_ignore_label=True, dice_class=MemoryEfficientSoftDiceLoss)
    ours = loss_of(False, batch_dice)(logits, memberships, known)
    torch.testing.assert_close(ours, stock(logits, torch.cat((memberships, ~known), 1)) + 1)


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("batch_dice", [True, False])
def test_ignored_pixels_change_nothing_and_get_no_gradient(exclusive, batch_dice):
    logits, memberships, weight = noise(B, K, T, Y, X).requires_grad_(), targets(), weights()
    loss = loss_of(exclusive, batch_dice)(logits, memberships, weight)
    (gradient,) = torch.autograd.grad(loss, logits)
    ignored = (weight == 0).expand_as(logits)
    assert (gradient[ignored] == 0).all()
    changed = logits.where(~ignored, 9 * noise(*logits.shape, seed=5)), memberships.where(~ignored, 1 - memberships)
    torch.testing.assert_close(loss_of(exclusive, batch_dice)(*changed, weight), loss)


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("batch_dice", [True, False])
def test_an_ignored_clip_has_no_part_and_ignored_batches_give_a_finite_zero(exclusive, batch_dice):
    logits, memberships, weight = noise(B, K, T, Y, X).requires_grad_(), targets(), weights()
    weight[1] = 0
    loss = loss_of(exclusive, batch_dice)
    torch.testing.assert_close(loss(logits, memberships, weight), loss(logits[:1], memberships[:1], weight[:1]))
    nothing = loss(logits, memberships, torch.zeros_like(weight))
    nothing.backward()
    assert nothing == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("batch_dice", [True, False])
def test_a_trusted_clip_outweighs_a_doubtful_one(batch_dice):
    logits, memberships, weight = noise(B, K, T, Y, X), targets(), torch.ones(B, 1, T, Y, X)
    alone = loss_of(True, batch_dice)(logits[:1], memberships[:1], weight[:1])
    distances = []
    for trust in (1.0, 0.1, 0.01):
        weight[1] = trust
        distances.append((loss_of(True, batch_dice)(logits, memberships, weight) - alone).abs())
    assert distances[0] > distances[1] > distances[2] > 0


def test_a_factor_common_to_all_weights_changes_nothing():
    logits, memberships, weight = noise(B, K, T, Y, X), targets(), weights()
    loss = loss_of(True, False)
    torch.testing.assert_close(loss(logits, memberships, 0.2 * weight), loss(logits, memberships, weight))


def test_half_precision_logits_are_handled_in_float32_even_under_autocast():
    logits, memberships, weight = noise(B, K, T, Y, X).bfloat16(), targets(), weights()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(True, False)(logits, memberships, weight)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, loss_of(True, False)(logits.float(), memberships, weight))
    assert loss.isfinite()
