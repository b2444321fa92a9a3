"""The contrastive loss: real positives, confident pixels, prototypes that outlive their batch."""

import math

import pytest
import torch
from torch.nn import functional

from nnunet_temporal.losses import contrastive
from nnunet_temporal.losses.contrastive import (
    SAMPLES,
    TEMPERATURE,
    ContrastiveLoss,
    boundary_band,
    contrast,
    sample_pixels,
)

B, T, D, Y, X = 2, 2, 8, 6, 5
IGNORE = 3
EVERY = torch.ones(B, T)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def unit(*shape, seed=0):
    return functional.normalize(torch.randn(*shape, generator=seeded(seed), dtype=torch.float64), dim=-1)


def label_map(seed=1):
    return torch.randint(IGNORE + 1, (B, 1, T, 2 * Y, 2 * X), generator=seeded(seed), dtype=torch.int16)


def features(seed=2):
    return torch.randn(B, T, D, Y, X, generator=seeded(seed))


def loss_module(labels=(0, 1, 2)):
    return ContrastiveLoss(labels, D, ignore_label=IGNORE)


def reference(anchors, anchor_labels, weights, keys, key_labels, temperature):
    """Anchor by anchor, positive by positive."""
    entries = list(zip(anchor_labels.tolist(), anchors, strict=True))
    entries += list(zip(key_labels.tolist(), keys, strict=True))
    total = loss = 0
    for i, label in enumerate(anchor_labels.tolist()):
        others = [(other, entry) for j, (other, entry) in enumerate(entries) if j != i and other >= 0]
        positives = [entry for other, entry in others if other == label]
        if label < 0 or not positives:
            continue
        partition = sum((anchors[i] @ entry / temperature).exp() for _, entry in others)
        terms = [-((anchors[i] @ entry / temperature).exp() / partition).log() for entry in positives]
        loss, total = loss + weights[i] * sum(terms) / len(terms), total + weights[i]
    return loss / total


def test_the_contrast_equals_the_loop_reference_in_values_and_gradients():
    anchors, keys = unit(9, D).requires_grad_(), unit(5, D, seed=1)
    # One empty place, and one anchor (of label 7) without a positive.
    labels, key_labels = torch.tensor([0, 1, 2, 0, 1, -1, 2, 0, 7]), torch.tensor([0, 2, -1, 1, 2])
    weights = torch.rand(9, generator=seeded(3), dtype=torch.float64)
    ours, expected = (
        function(anchors, labels, weights, keys, key_labels, TEMPERATURE) for function in (contrast, reference)
    )
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, anchors)[0] for loss in (ours, expected)))


def test_a_batch_without_anchors_gives_a_finite_zero_with_a_gradient_of_zero():
    anchors = unit(4, D).requires_grad_()
    loss = contrast(anchors, torch.full((4,), -1), torch.ones(4), unit(2, D), torch.tensor([-1, -1]), TEMPERATURE)
    loss.backward()
    assert loss == 0
    assert (anchors.grad == 0).all()


def constant_positive_term(anchors, labels, temperature):
    """The sketch's loss: each foreground pixel against itself and the background."""
    foreground, background = anchors[labels == 1], anchors[labels == 0]
    own = (foreground * foreground).sum(1, keepdim=True)
    logits = torch.cat((own, foreground @ background.T), 1) / temperature
    return -logits.log_softmax(1)[:, 0].mean()


def optimised_cosines(loss):
    """Mean cosines among foreground, and between foreground and background, of features trained from noise."""
    labels = (torch.arange(48) < 24).long()
    free = torch.randn(48, 16, generator=seeded(4), requires_grad=True)
    optimizer = torch.optim.Adam([free], lr=0.06)
    for _ in range(50):
        optimizer.zero_grad()
        loss(functional.normalize(free, dim=1), labels).backward()
        optimizer.step()
    cosines = functional.normalize(free.detach(), dim=1) @ functional.normalize(free.detach(), dim=1).T
    among = cosines[:24, :24][~torch.eye(24, dtype=torch.bool)]
    return among.mean().item(), cosines[:24, 24:].mean().item()


def test_it_separates_classes_where_a_constant_positive_term_does_not():
    def ours(anchors, labels):
        nothing = torch.zeros(0, 16), torch.zeros(0, dtype=torch.long)
        return contrast(anchors, labels, torch.ones(len(anchors)), *nothing, TEMPERATURE)

    among, between = optimised_cosines(ours)
    assert among > 0.5
    assert between < -0.3
    among, between = optimised_cosines(lambda anchors, labels: constant_positive_term(anchors, labels, 0.07))
    assert among < 0.2
    assert between > -0.2


def test_the_band_lies_on_both_sides_of_a_boundary_and_ignored_pixels_make_none():
    labels = torch.zeros(1, 1, 5, 6)
    labels[..., 3:] = 2
    assert boundary_band(labels, IGNORE)[0, 0].any(0).tolist() == [False, False, True, True, False, False]
    labels[..., 3] = IGNORE
    assert not boundary_band(labels, IGNORE).any()


def sampled(members, band, number=8, seed=0):
    index, taken = sample_pixels(members[None, None], band[None], number, seeded(seed))
    return index[0, 0][taken[0, 0]].tolist()


def test_half_of_the_pixels_are_from_the_band_and_none_comes_twice():
    members, band = torch.arange(100) < 60, torch.arange(100) % 3 == 0
    for seed in range(5):
        drawn = sampled(members, band, seed=seed)
        assert len(set(drawn)) == 8
        assert all(members[pixel] for pixel in drawn)
        assert sum(band[pixel].item() for pixel in drawn) == 4


@pytest.mark.parametrize(
    ("in_band", "inside", "from_band"), [(1, 50, 1), (50, 1, 7), (50, 0, 8), (0, 50, 0), (2, 3, 2)]
)
def test_where_one_half_has_too_few_pixels_the_other_fills_up(in_band, inside, from_band):
    pixels = torch.arange(120)
    band, members = pixels < in_band, pixels < in_band + inside
    drawn = sampled(members, band)
    assert sum(band[pixel].item() for pixel in drawn) == from_band
    assert len(drawn) == len(set(drawn)) == min(8, in_band + inside)


def test_the_loss_of_a_batch_equals_the_contrast_of_all_its_confident_pixels():
    maps, weight = label_map(), torch.tensor([[1.0, 0.5], [0.2, 0.0]])
    values = features().requires_grad_()
    loss = loss_module()(values, maps, weight, seeded())
    # Fewer pixels than the limit: whatever is drawn, all take part. Centres are nearest to odd pixels.
    entries = [
        (maps[b, 0, t, 2 * y + 1, 2 * x + 1].item(), weight[b, t], functional.normalize(values[b, t, :, y, x], dim=0))
        for b in range(B) for t in range(T) for y in range(Y) for x in range(X)
    ]  # fmt: skip
    kept = [entry for entry in entries if entry[0] != IGNORE and entry[1] > 0]
    labels, weights, anchors = (list(column) for column in zip(*kept, strict=True))
    nothing = torch.zeros(0, D), torch.zeros(0)
    expected = reference(torch.stack(anchors), torch.tensor(labels), torch.stack(weights), *nothing, TEMPERATURE)
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(result, values)[0] for result in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_pixels_nobody_knows_and_frames_without_weight_get_no_gradient():
    maps, values, weight = label_map(), features().requires_grad_(), EVERY.clone()
    weight[0, 1] = 0
    maps[1, :, 0] = IGNORE
    loss_module()(values, maps, weight, seeded()).backward()
    assert (values.grad[0, 1] == 0).all()
    assert (values.grad[1, 0] == 0).all()
    assert (values.grad[0, 0] != 0).any()


def test_a_class_contributes_a_limited_number_of_pixels_drawn_by_the_generator():
    values = torch.randn(1, 2, D, 16, 16, generator=seeded(5)).requires_grad_()
    maps = torch.zeros(1, 1, 2, 16, 16, dtype=torch.int16)
    maps[..., 8:] = 1
    drawn = []
    for seed in (0, 0, 1):
        values.grad = None
        loss_module()(values, maps, torch.ones(1, 2), seeded(seed)).backward()
        drawn.append((values.grad != 0).any(2))
    assert drawn[0].sum() == 2 * SAMPLES
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("shown", [0, 1, IGNORE])
def test_fewer_than_two_classes_give_a_zero_with_a_graph(shown):
    module, values = loss_module(), features().requires_grad_()
    module(values, label_map(), EVERY, seeded())  # remembered prototypes of other classes make no second one
    loss = module(values, torch.full_like(label_map(), shown), EVERY, seeded())
    loss.backward()
    assert loss == 0
    assert (values.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_for_equal_and_for_large_features(dtype):
    for values in (torch.ones(B, T, D, Y, X), 1e4 * features()):
        values = values.to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_module()(values, label_map(), EVERY, seeded())
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert values.grad.isfinite().all()


def test_prototypes_are_the_mean_features_of_trusted_frames_only():
    module, values, maps = loss_module((0, 2)), features(), label_map()
    module(values, maps, torch.tensor([[1.0, 0.1], [0.3, 0.0]]), seeded())
    shown = maps[0, 0, 0, 1::2, 1::2] == 2
    expected = functional.normalize(functional.normalize(values[0, 0], dim=0)[:, shown].sum(1), dim=0)
    torch.testing.assert_close(module.prototypes[1, 0], expected)
    assert module.written.sum(1).tolist() == [1, 1]
    assert module.next_slot.tolist() == [1, 1]


def test_an_accepted_pseudo_label_of_average_deviation_is_trusted():
    module = loss_module()
    module(features(), label_map(), EVERY * math.exp(-1), seeded())
    assert module.written.any()


def test_the_memory_attracts_and_repels_and_gets_no_gradient():
    module, values, maps = loss_module(), features().requires_grad_(), label_map()
    empty = module(values, maps, EVERY, seeded())
    filled = module(values, maps, EVERY, seeded())
    assert filled != empty
    filled.backward()  # the buffers have changed since, the graph has not
    empty.backward()
    assert not module.prototypes.requires_grad


def test_the_oldest_prototypes_give_way(monkeypatch):
    monkeypatch.setattr(contrastive, "PROTOTYPES", 6)
    module = loss_module()
    maps = label_map()
    firsts = []
    for step in range(6 // B + 1):
        module(features(seed=step), maps, EVERY, seeded())
        firsts.append(module.prototypes[:, 0].clone())
    assert all(torch.equal(first, firsts[0]) for first in firsts[:-1])
    assert not torch.equal(firsts[-1], firsts[0])
    assert module.written.all()
    assert module.next_slot.tolist() == [B] * 3


def test_a_checkpoint_holds_the_memory():
    module, restored = loss_module(), loss_module()
    module(features(), label_map(), EVERY, seeded())
    restored.load_state_dict(module.state_dict())
    values = features(seed=9)
    assert torch.equal(*(each(values, label_map(), EVERY, seeded()) for each in (module, restored)))
