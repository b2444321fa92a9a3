"""Masked attention to unreliable pixels: never empty, never NaN, silent where the decoder is sure."""

import math

import pytest
import torch
from torch import nn

from nnunet_temporal.networks.unreliable_pixels import QueryUpdate, UnreliablePixelAttention, margins, unreliable

WIDTHS, SIZES = (4, 5, 6, 7), ((16, 24), (8, 12), (4, 6), (2, 3))
CLASSES = 3
EXCLUSIVE, REGIONS = torch.tensor(True), torch.tensor(False)


def head(awake=True, classes=CLASSES, widths=WIDTHS, exclusive=True):
    """A small head; ``awake`` gives its last layer random weights, as training would."""
    torch.manual_seed(0)
    module = UnreliablePixelAttention(widths, classes, heads=2, width=8)
    module.exclusive.fill_(exclusive)
    if awake:
        nn.init.normal_(module.projection.weight)
    return module


def features(frames=2, widths=WIDTHS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(frames, width, *size, generator=generator) for width, size in zip(widths, SIZES, strict=False)]


def logits_of(frames=2, classes=CLASSES, scale=1.0, seed=2):
    return scale * torch.randn(frames, classes, *SIZES[0], generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("widths", [WIDTHS, WIDTHS[:2], WIDTHS[:1]])
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_an_untrained_head_returns_the_logits(classes, widths):
    logits = logits_of(classes=classes)
    assert torch.equal(head(False, classes, widths)(features(widths=widths), logits), logits)


def plain_margin(probabilities):
    ordered = sorted(probabilities, reverse=True)
    return ordered[0] - ordered[1]


def test_the_margin_of_classes_is_largest_minus_second_largest_probability():
    logits = logits_of(1, 4)
    ours = margins(logits, SIZES[0], EXCLUSIVE)
    probabilities = logits.softmax(1)[0].flatten(1).T.tolist()
    expected = torch.tensor([plain_margin(pixel) for pixel in probabilities]).view(SIZES[0])
    torch.testing.assert_close(ours, expected.expand(1, 4, -1, -1), atol=1e-6, rtol=0)


def test_the_margin_of_regions_is_each_ones_own():
    logits = logits_of(1, 4)
    expected = (2 * torch.sigmoid(logits) - 1).abs()
    torch.testing.assert_close(margins(logits, SIZES[0], REGIONS), expected)


def test_for_two_classes_a_margin_of_a_fifth_is_a_probability_of_two_to_three_fifths():
    foreground = torch.linspace(0.01, 0.99, 99).view(1, 1, 9, 11)
    logits = torch.cat((torch.zeros_like(foreground), torch.logit(foreground)), 1)
    small = margins(logits, (9, 11), EXCLUSIVE)[:, 1:] <= 0.2 + 1e-6
    assert torch.equal(small, (foreground >= 0.4 - 1e-6) & (foreground <= 0.6 + 1e-6))
    assert torch.equal(small, margins(logits[:, 1:], (9, 11), REGIONS) <= 0.2 + 1e-6)


def test_a_single_output_is_a_region_whatever_the_buffer_says():
    logits = logits_of(classes=1)
    assert torch.equal(margins(logits, (4, 6), EXCLUSIVE), margins(logits, (4, 6), REGIONS))


@pytest.mark.parametrize("pixels", [1, 2, 3, 6, 20, 100, 1001])
def test_at_least_a_twentieth_and_at_most_half_of_the_pixels_are_unreliable(pixels):
    generator = torch.Generator().manual_seed(0)
    for margin in (
        torch.zeros(pixels),
        torch.ones(pixels),
        torch.full((pixels,), 0.2),
        torch.rand(pixels, generator=generator),
        torch.rand(pixels, generator=generator) / 5,
    ):
        count = int(unreliable(margin).sum())
        least = math.ceil(0.05 * pixels)
        assert least <= count <= max(least, pixels // 2)


def test_between_the_bounds_exactly_the_small_margins_are_unreliable():
    margin = torch.rand(3, 4, 500, generator=torch.Generator().manual_seed(0))
    assert torch.equal(unreliable(margin), margin <= 0.2)


def test_the_smallest_margins_are_taken_when_there_are_too_few_or_too_many():
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert set(order[unreliable(0.5 + order / 1000)].tolist()) == set(range(5))
    assert set(order[unreliable(order / 1000)].tolist()) == set(range(50))


def adversarial():
    """Logits that would empty or flood a mask: constant, one-hot, and infinitely sure."""
    one_hot = nn.functional.one_hot(torch.zeros(2, *SIZES[0], dtype=torch.long), CLASSES).movedim(-1, 1).float()
    half = torch.cat((one_hot[..., :12], one_hot[..., 12:].roll(1, 1)), -1)
    return {
        "constant": torch.zeros(2, CLASSES, *SIZES[0]),
        "one hot": 50 * one_hot,
        "huge": 1e30 * one_hot,
        "infinite": torch.where(one_hot.bool(), torch.inf, -1.0),
        "minus infinite": torch.where(half.bool(), 0.0, -torch.inf),
        "opposite": 1e30 * (2 * half - 1),
    }


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("kind", adversarial())
def test_no_logits_make_the_correction_nan(kind, exclusive):
    module, logits = head(exclusive=exclusive), adversarial()[kind]
    out = module(features(), logits)
    assert not out.isnan().any()
    assert torch.equal(out.isinf(), logits.isinf())
    out[out.isfinite()].abs().clamp(max=1e3).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


def blobs(sure=8.0):
    """Logits of three classes in stripes along cells, sure but for one column of cells between the first two."""
    logits = torch.full((2, CLASSES, *SIZES[0]), -sure)
    logits[:, 0, :, :8] = logits[:, 1, :, 12:16] = logits[:, 2, :, 16:] = sure
    logits[:, :2, :, 8:12] = 0
    return logits


@torch.no_grad()
@pytest.mark.parametrize("exclusive", [True, False])
def test_only_unreliable_pixels_change(exclusive):
    module, logits = head(exclusive=exclusive), blobs()
    changed = (module(features(), logits) - logits).abs() > 0
    assert changed[:, :2, :, 8:12].all()
    if exclusive:
        assert not changed[..., :8].any()
        assert not changed[..., 12:].any()
    else:
        # Of the third region no pixel is unreliable: the share of the least reliable ones is.
        assert not changed[:, :2, :, :8].any()
        assert 0 < changed[:, 2].float().mean() < 0.1


@torch.no_grad()
def test_the_correction_is_query_times_pixel_features_weighted_by_one_minus_the_margin():
    module, given = head(), {}
    for name in ("projection", "pixels"):
        module.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: given.update({name: out}))
    logits = torch.zeros(2, CLASSES, *SIZES[0])
    logits[:, 0] = 0.1
    correction = module(features(), logits) - logits
    products = torch.einsum("nkc,ncyx->nkyx", given["projection"], given["pixels"]) / 8**0.5
    expected = nn.functional.interpolate(products, SIZES[0], mode="bilinear")
    expected *= 1 - plain_margin(logits[0, :, 0, 0].softmax(0).tolist())
    changed = correction != 0
    assert changed.float().mean() == 0.5
    torch.testing.assert_close(correction[changed], expected[changed], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_query_sees_visible_pixels_only():
    torch.manual_seed(0)
    update, x = QueryUpdate(5, 8, 2), torch.randn(2, 5, 4, 6)
    queries, visible = torch.randn(2, CLASSES, 8), torch.rand(2, CLASSES, 24) < 0.5
    visible[..., 3] = False
    visible[:, 0, 7] = True
    before = update(queries, x, visible)
    x.flatten(2)[..., 3] += 100
    torch.testing.assert_close(update(queries, x, visible), before)
    x.flatten(2)[..., 7] += 1
    assert (update(queries, x, visible) - before)[:, 0].abs().max() > 1e-4


def test_reliability_has_no_gradient():
    module, logits = head(), logits_of().requires_grad_()
    out = module(features(), logits)
    (gradient,) = torch.autograd.grad(out.sum(), logits)
    assert torch.equal(gradient, torch.ones_like(logits))
    assert not margins(logits, SIZES[1], EXCLUSIVE).requires_grad


def test_every_parameter_learns_once_the_last_layer_has_left_zero():
    for awake in (False, True):
        module, x = head(awake), features()
        module(x, logits_of()).square().sum().backward()
        assert all(parameter.grad is not None for parameter in module.parameters())
    silent = [name for name, parameter in module.named_parameters() if parameter.grad.abs().max() == 0]
    assert silent == []


@torch.no_grad()
def test_frames_do_not_see_each_other():
    module, x, logits = head(), features(3), logits_of(3)
    alone = module([level[1:2] for level in x], logits[1:2])
    torch.testing.assert_close(module(x, logits)[1:2], alone)


@torch.no_grad()
def test_whether_classes_exclude_each_other_is_saved_with_the_weights():
    trained, fresh = head(exclusive=False), head(exclusive=True)
    fresh.load_state_dict(trained.state_dict())
    x, logits = features(), logits_of(scale=3)
    assert torch.equal(fresh(x, logits), trained(x, logits))
    assert not torch.equal(head(exclusive=True)(x, logits), trained(x, logits))


@torch.no_grad()
def test_bfloat16_autocast_stays_finite_and_keeps_the_type_of_the_logits():
    module, x, logits = head(), features(), logits_of()
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x, logits.bfloat16())
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()
