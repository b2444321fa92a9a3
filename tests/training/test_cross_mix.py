"""Cross-mix: what is pasted, where it lies, and that no pixel gets a label which it does not show."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from nnunet_temporal.losses.boundary import BoundaryBand, CrossFrameBoundaryLoss
from nnunet_temporal.networks.temporal_unet import Clip
from nnunet_temporal.training.cross_mix import (
    AREA_RATIOS,
    CONTRAST_CHANGES,
    CrossMix,
    MixedClips,
    align,
    counterparts,
    enclosing_box,
    match_surroundings,
    opacity,
)
from nnunet_temporal.training.window_losses import Window

IGNORE = 3
SIDE, FRAMES = 40, 4
ALWAYS = CrossMix(1.0, IGNORE)
STILL = [(0, 0)] * FRAMES
ONE_VIEW = torch.zeros(4000, dtype=torch.int64)


def disc(centre, radius, steps=STILL, side=SIDE):
    """A disc (T, Y, X) that moves by ``steps`` from its first centre."""
    y, x = np.mgrid[:side, :side]
    squares = [(y - centre[0] - down) ** 2 + (x - centre[1] - right) ** 2 for down, right in steps]
    return torch.from_numpy(np.stack(squares) <= radius**2)


def heart(centre, radius, steps=STILL, side=SIDE):
    """Labels (1, T, Y, X) of a cavity (2) in a wall (1)."""
    labels = disc(centre, radius, steps, side).short()
    labels[disc(centre, radius / 2, steps, side)] = 2
    return labels[None]


def painted(*labels):
    """A batch whose images show their labels and whose clips have weights 0.25, 0.5, ..."""
    labels = torch.stack(labels)
    weight = (1 + torch.arange(len(labels)))[:, None].expand(-1, labels.shape[2]) / 4
    return labels.float(), torch.ones(weight.shape, dtype=torch.bool), labels, weight


def mixed(parts, seed=0, mix=ALWAYS, decoded=None, views=None):
    """Mix clips that are windows as a whole, of one view, unless told otherwise."""
    data, valid, labels, weight = parts
    decoded = torch.arange(data.shape[2]).expand(valid.shape) if decoded is None else decoded
    views = torch.zeros(len(data), dtype=torch.int64) if views is None else views
    return mix(Clip(data, valid, decoded), labels, weight, views, torch.Generator().manual_seed(seed))


def assert_frames_unchanged(parts, result, frames=slice(None)):
    data, _, labels, weight = parts
    assert torch.equal(result.data[:, :, frames], data[:, :, frames])
    assert torch.equal(result.labels[:, :, frames], labels[:, :, frames])
    assert (result.weight == weight[:, None, :, None, None])[:, :, frames].all()
    assert not result.seam[:, :, frames].any()


def pasted_from(result, source):
    """Where a pixel of clip 0 carries the weight of clip ``source``."""
    return result.weight[0, 0] == (1 + source) / 4


def loop_opacity(mask, radius):
    """A plain reference by exact distances and scipy's Gaussian."""
    if not mask.any():
        return np.zeros(mask.shape)
    dilated = (ndimage.distance_transform_edt(~mask) <= radius).astype(float)
    gaussian = ndimage.gaussian_filter(dilated, radius / 2, mode="nearest", truncate=4)
    return np.where(mask, 1, ((gaussian - 0.1) / 0.8).clip(0, 1))


def loop_alignment(source, target):
    """The shift of one clip by loops over frames, or None."""
    shared = [t for t in range(len(source)) if source[t].any() and target[t].any()]
    if not shared:
        return None
    centres = [[np.argwhere(region[t]).mean(0) for t in shared] for region in (source, target)]
    moves = np.array(centres[1]) - np.array(centres[0])
    shift = np.round(np.median(moves, axis=0))
    ratio = sum(source[t].sum() for t in shared) / sum(target[t].sum() for t in shared)
    offset = max(np.hypot(*(move - shift)) for move in moves)
    return shift.astype(int) if 0.5 <= ratio <= 2 and offset < 0.15 * min(source.shape[1:]) else None


def loop_mix(data, valid, labels, weight, *, source, wanted, radius):
    """Mix clip by clip, frame by frame and pixel by pixel; the draws are given."""
    data, labels = data.double().numpy(), labels.numpy()
    out, out_labels = data.copy(), labels.copy()
    out_weight = np.broadcast_to(weight.numpy()[:, None, :, None, None], labels.shape).copy()
    height, width = data.shape[3:]
    for b, s in enumerate(source.tolist()):
        regions = [np.isin(labels[clip, 0], np.flatnonzero(wanted[b])) for clip in (s, b)]
        for region in regions:
            region[~(valid[b] & valid[s]).numpy()] = False
        shift = loop_alignment(*regions)
        down, right = (0, 0) if shift is None else shift
        if shift is None and regions[0].any():
            _, ys, xs = np.nonzero(regions[0])
            for t in range(len(regions[0])):
                if regions[0][t].any():
                    regions[0][t, ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] = True
        patch, patch_labels = np.empty_like(data[b]), np.full_like(labels[b, 0], IGNORE)
        mask = np.zeros(patch_labels.shape, bool)
        for y, x in itertools.product(range(height), range(width)):
            row, column = y - down, x - right
            patch[:, :, y, x] = data[s][:, :, min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
            if 0 <= row < height and 0 <= column < width:
                patch_labels[:, y, x] = labels[s, 0, :, row, column]
                mask[:, y, x] = regions[0][:, row, column] & (patch_labels[:, y, x] != IGNORE)
        alpha = np.stack([loop_opacity(frame, radius) for frame in mask])
        ring = (alpha > 0) & (alpha < 1)
        for c in range(data.shape[1] if ring.any() else 0):
            inner, outer = patch[c][ring], data[b, c][ring]
            contrast = min(max(outer.std() / inner.std(), CONTRAST_CHANGES[0]), CONTRAST_CHANGES[1])
            fitted = (patch[c] - inner.mean()) * contrast + outer.mean()
            out[b, c] = (1 - alpha) * data[b, c] + alpha * fitted
        out_labels[b, 0] = np.where(alpha == 1, patch_labels, np.where(ring, IGNORE, labels[b, 0]))
        out_weight[b, 0][alpha == 1] = np.broadcast_to(weight[s].numpy()[:, None, None], alpha.shape)[alpha == 1]
    return out, out_labels, out_weight


@pytest.mark.parametrize(("side", "height"), [(SIDE, SIDE), (128, 96)])
@pytest.mark.parametrize("seed", range(4))
def test_mixing_is_what_plain_loops_over_pixels_compute(side, height, seed):
    random = np.random.default_rng(seed)
    # Small and large hearts, also at the border, so that some pairs are aligned and others fall back to a box.
    hearts = [
        heart(random.integers(0, height, 2), side * size, random.integers(-2, 3, (FRAMES, 2)), side)[..., :height, :]
        for size in (0.15, 0.2, 0.3)
    ]
    data, valid, labels, weight = painted(*hearts)
    data = (data + torch.from_numpy(random.normal(size=data.shape))).float().repeat(1, 2, 1, 1, 1)
    labels[torch.from_numpy(random.random(labels.shape) < 0.01)] = IGNORE
    labels[0, :, 1] = 0
    valid[1, -1] = False
    source, wanted, radius = ALWAYS._draw(ONE_VIEW[:3], height, torch.Generator().manual_seed(seed))
    expected = loop_mix(data, valid, labels, weight, source=source, wanted=wanted, radius=radius)
    result = mixed((data, valid, labels, weight), seed)
    torch.testing.assert_close(result.data.double().numpy(), expected[0], rtol=0, atol=1e-4)
    assert (result.labels.numpy() == expected[1]).all()
    assert (result.weight.numpy() == expected[2]).all()
    assert result.seam.any()


@pytest.mark.parametrize("seed", range(5))
def test_images_that_show_their_labels_still_show_them_outside_the_seam(seed):
    parts = painted(heart((12, 14), 8), heart((25, 22), 8), heart((18, 26), 8))
    result = mixed(parts, seed)
    shown = result.data - result.labels
    own = result.weight == parts[3][:, None, :, None, None]
    assert (shown[own & ~result.seam] == 0).all()
    assert not own.all()
    for b in range(3):
        # A change of brightness and contrast is the same for all pixels of a label, and keeps their order.
        values = [result.data[b][~own[b] & (result.labels[b] == label)].unique() for label in (0, 1, 2)]
        means = [value.mean() for value in values if len(value)]
        assert all(len(value) == 0 or value.max() - value.min() < 1e-5 for value in values)
        assert sorted(means) == means


def test_equal_surroundings_leave_the_pasted_grey_values_alone():
    # One label, so that the whole heart is pasted onto a heart of its size: around both is background.
    parts = painted(*(disc(centre, 7).short()[None] for centre in ((12, 14), (25, 22))))
    result = mixed(parts, mix=CrossMix(1.0, 2))
    torch.testing.assert_close(result.data[~result.seam], result.labels[~result.seam].float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_pixels_away_from_the_paste_keep_every_bit(dtype):
    data, valid, labels, weight = painted(heart((12, 14), 6), heart((25, 22), 6))
    data = torch.randn(data.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    result = mixed((data, valid, labels, weight))
    own = (result.weight == weight[:, None, :, None, None]) & ~result.seam
    assert torch.equal(result.data[own], data[own])
    assert (result.data != data).any()


def test_the_seam_is_ignored_and_surrounds_what_is_pasted():
    result = mixed(painted(heart((12, 14), 6), heart((25, 22), 6)))
    assert (result.labels[result.seam] == IGNORE).all()
    pasted = pasted_from(result, 1).numpy()
    touching = np.stack([ndimage.binary_dilation(frame) for frame in pasted]) & ~pasted
    assert touching.any()
    assert result.seam[0, 0].numpy()[touching].all()


def test_without_a_region_in_the_source_nothing_changes():
    parts = painted(heart((12, 14), 6), torch.zeros_like(heart((0, 0), 1)))
    result = mixed(parts)
    assert_frames_unchanged([part[:1] for part in parts], MixedClips(*(part[:1] for part in result)))
    ignored = painted(heart((12, 14), 6), torch.full_like(heart((0, 0), 1), IGNORE))
    assert torch.equal(mixed(ignored).labels[0], ignored[2][0])


def test_at_probability_zero_nothing_changes():
    parts = painted(heart((12, 14), 6), heart((25, 22), 6))
    assert_frames_unchanged(parts, mixed(parts, mix=CrossMix(0.0, IGNORE)))


def test_a_lone_clip_does_not_change():
    parts = painted(heart((12, 14), 6))
    assert_frames_unchanged(parts, mixed(parts))


def test_frames_that_are_padding_in_either_clip_do_not_change():
    parts = painted(heart((12, 14), 6), heart((25, 22), 6))
    parts[1][0, 3] = parts[1][1, 2] = False
    result = mixed(parts)
    assert_frames_unchanged(parts, result, slice(2, 4))
    assert result.seam[:, :, :2].flatten(2).any(2).all()


def test_frames_whose_source_has_no_region_do_not_change():
    parts = painted(heart((12, 14), 6), heart((25, 22), 6))
    parts[2][:, :, 1] = 0
    result = mixed(parts)
    assert_frames_unchanged(parts, result, slice(1, 2))
    assert result.seam[:, :, 2:].flatten(2).any(2).all()


def test_arguments_are_not_mutated():
    parts = painted(heart((12, 14), 6), heart((25, 22), 6))
    copies = [part.clone() for part in parts]
    mixed(parts)
    assert all(torch.equal(part, copy) for part, copy in zip(parts, copies, strict=True))


def test_a_region_is_moved_onto_the_targets_and_keeps_its_own_motion():
    beat = [(0, 0), (0, 2), (1, 2), (0, 0)]
    source, target = disc((12, 12), 5, beat)[None], disc((25, 22), 6)[None]
    shift, fits = align(source, target)
    assert fits.all()
    assert shift.tolist() == [[13, 9]]
    parts = painted(target.short(), source.short())
    result = mixed(parts, mix=CrossMix(1.0, 2))
    assert (result.labels[0, 0][disc((25, 21), 5, beat)] == 1).all()


def test_one_deviating_frame_does_not_change_the_shift():
    source, target = disc((12, 12), 5), disc((22, 20), 5, [(0, 0), (0, 0), (4, 3), (0, 0)])
    assert align(source[None], target[None])[0].tolist() == [[10, 8]]


@pytest.mark.parametrize(("height", "step", "fits"), [(SIDE, 5, True), (SIDE, 7, False), (30, 5, False)])
def test_regions_that_move_apart_do_not_fit(height, step, fits):
    source, target = disc((20, 12), 5), disc((20, 12), 5, [(0, 0), (0, 0), (0, 0), (0, step)])
    assert align(source[None, :, :height], target[None, :, :height])[1].tolist() == [fits]


@pytest.mark.parametrize(("rows", "fits"), [(3, False), (4, True), (16, True), (17, False)])
def test_areas_may_differ_by_a_factor_of_two(rows, fits):
    assert AREA_RATIOS == (0.5, 2.0)
    source, target = torch.zeros(2, 1, FRAMES, SIDE, SIDE, dtype=torch.bool)
    source[..., :rows, :6] = True
    target[..., :8, :6] = True
    assert align(source, target)[1].tolist() == [fits]


def test_frames_without_a_region_have_no_say_in_the_alignment():
    source, target = disc((12, 12), 5), disc((22, 20), 5)
    source[1] = target[2] = False
    source[2] |= disc((30, 30), 9)[2]
    shift, fits = align(source[None], target[None])
    assert shift.tolist() == [[10, 8]]
    assert fits.all()


def box_of_the_source(result):
    """Whether clip 0 shows clip 1 in the box around a still disc at (12, 12) with radius 5."""
    box = torch.zeros(FRAMES, SIDE, SIDE, dtype=torch.bool)
    box[:, 7:18, 7:18] = True
    return torch.equal(pasted_from(result, 1), box)


@pytest.mark.parametrize(
    "target",
    [torch.zeros(FRAMES, SIDE, SIDE), disc((20, 20), 16), disc((12, 12), 5, [(0, 0), (0, 0), (0, 0), (12, 12)])],
    ids=["no region", "another size", "another motion"],
)
def test_where_regions_do_not_fit_the_box_is_pasted_where_it_lies(target):
    source = disc((12, 12), 5)
    result = mixed(painted(target.short()[None], source.short()[None]), mix=CrossMix(1.0, 2))
    assert box_of_the_source(result)
    inside = pasted_from(result, 1)
    assert torch.equal(result.labels[0, 0][inside], source[inside].short())


def test_a_box_encloses_all_frames_and_stands_in_those_with_a_region():
    region = torch.zeros(2, 3, 6, 7, dtype=torch.bool)
    region[0, 0, 1, 2] = region[0, 2, 4, 5] = True
    box = enclosing_box(region)
    expected = torch.zeros(6, 7, dtype=torch.bool)
    expected[1:5, 2:6] = True
    assert torch.equal(box[0], torch.stack([expected, torch.zeros_like(expected), expected]))
    assert not box[1].any()


def test_ignored_pixels_of_the_source_are_not_pasted_and_never_background():
    source = torch.full((1, FRAMES, SIDE, SIDE), 2, dtype=torch.int16)
    source[0, :, 5:9, 5:9] = source[0, :, 30:34, 30:34] = 1
    data, valid, labels, weight = painted(torch.zeros_like(source), source)
    data[1] = torch.where(labels[1] == 1, 1.0, 77.0)
    result = mixed((data, valid, labels, weight), mix=CrossMix(1.0, 2))
    assert (result.labels[0, 0, :, 5:9, 5:9] == 1).all()
    # Between the two squares, inside the box: nothing is known of the source there.
    assert (result.data[0, 0, :, 15:25, 15:25] == 0).all()
    assert (result.data[0, 0][result.labels[0, 0] == 0] == 0).all()


def test_narrow_gaps_of_ignored_pixels_are_pasted_but_stay_ignored():
    source = disc((20, 20), 8).short()[None]
    source[..., 20] = 2
    target = disc((20, 20), 8).short()[None]
    result = mixed(painted(target, source), mix=CrossMix(1.0, 2))
    assert (result.labels[0, 0, :, 14:26, 20] == 2).all()


def test_sources_are_other_clips_and_labels_random_sets():
    chosen = set()
    for seed in range(60):
        batch = 2 + seed % 4
        source, wanted, _ = ALWAYS._draw(ONE_VIEW[:batch], SIDE, torch.Generator().manual_seed(seed))
        assert sorted(source) == list(range(batch))
        assert (source != torch.arange(batch)).all()
        chosen |= {tuple(np.flatnonzero(row)) for row in wanted}
    assert chosen == {(1,), (2,), (1, 2)}


def test_the_probability_is_the_share_of_clips_that_are_mixed():
    _, wanted, _ = CrossMix(0.3, IGNORE)._draw(ONE_VIEW, SIDE, torch.Generator().manual_seed(0))
    assert abs(float(wanted.any(1).float().mean()) - 0.3) < 0.03


@pytest.mark.parametrize(("side", "radii"), [(256, {2, 3, 4, 5, 6}), (512, {4, 6, 8, 10, 12}), (64, {1, 2})])
def test_the_seam_grows_with_the_image_and_never_vanishes(side, radii):
    generator = torch.Generator().manual_seed(0)
    assert {ALWAYS._draw(ONE_VIEW[:2], side, generator)[2] for _ in range(60)} == radii


def test_only_the_chosen_labels_are_pasted():
    parts = painted(heart((12, 14), 8), heart((25, 22), 8))
    alone = 0
    for seed in range(20):
        _, wanted, _ = ALWAYS._draw(ONE_VIEW[:2], SIDE, torch.Generator().manual_seed(seed))
        result = mixed(parts, seed)
        seen = {int(label) for label in result.labels[0, 0][pasted_from(result, 1)].unique()} - {IGNORE}
        assert set(np.flatnonzero(wanted[0])) <= seen
        if not wanted[0, 1]:
            alone += 1
            assert pasted_from(result, 1).sum() < 1.5 * (parts[2][1] == 2).sum()
    assert alone > 0


@pytest.mark.parametrize("radius", range(1, 7))
def test_opacity_is_a_dilated_mask_behind_a_gaussian(radius):
    mask = torch.stack([disc((20, 15), 7)[0], disc((2, 38), 9)[0]])[None]
    mask[0, 0, 30, 30] = True
    alpha = opacity(mask, radius)
    expected = np.stack([loop_opacity(frame, radius) for frame in mask[0].numpy()])
    np.testing.assert_allclose(alpha[0].numpy(), expected, atol=1e-5)
    assert (alpha[mask] == 1).all()
    distance = np.stack([ndimage.distance_transform_edt(~frame) for frame in mask[0].numpy()])
    assert (alpha[0].numpy()[distance > 3 * radius] == 0).all()


def test_nothing_is_shown_where_nothing_is_pasted():
    assert not opacity(torch.zeros(1, 2, 9, 9, dtype=torch.bool), 3).any()


def test_surroundings_get_the_mean_and_contrast_of_the_target():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(2, 2, 3, 8, 8, generator=generator)
    target = 5 + 1.5 * torch.randn(2, 2, 3, 8, 8, generator=generator)
    ring = torch.rand(2, 1, 3, 8, 8, generator=generator) < 0.5
    fitted = match_surroundings(source, target, ring)
    for b, c in itertools.product(range(2), range(2)):
        inner, outer = fitted[b, c][ring[b, 0]], target[b, c][ring[b, 0]]
        torch.testing.assert_close(inner.mean(), outer.mean())
        torch.testing.assert_close(inner.std(), outer.std())
        # One straight line through all pixels and frames, in the ring and out of it.
        slopes = (fitted[b, c] - fitted[b, c, 0, 0, 0]) / (source[b, c] - source[b, c, 0, 0, 0])
        slopes = slopes.flatten()[1:]
        torch.testing.assert_close(slopes, slopes[:1].expand_as(slopes), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("deviation", "contrast"), [(100.0, 2.0), (0.0, 0.5)])
def test_a_uniform_or_glaring_place_changes_the_contrast_within_bounds(deviation, contrast):
    source = torch.randn(1, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    fitted = match_surroundings(source, deviation * source.roll(1, 3), torch.ones(1, 1, 1, 8, 8, dtype=torch.bool))
    torch.testing.assert_close(fitted.std() / source.std(), torch.tensor(contrast))


def test_without_a_ring_grey_values_stay():
    source = torch.randn(1, 1, 1, 4, 4)
    assert torch.equal(match_surroundings(source, source + 3, torch.zeros(1, 1, 1, 4, 4, dtype=torch.bool)), source)


def test_a_seed_repeats_the_mix_and_another_changes_it():
    parts = painted(*(heart((12 + 5 * i, 14 + 3 * i), 6 + i) for i in range(4)))
    first, again, other = mixed(parts, 1), mixed(parts, 1), mixed(parts, 2)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first.labels, other.labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_stay_so_and_get_the_same_labels(dtype):
    data, valid, labels, weight = painted(heart((12, 14), 6), heart((25, 22), 7))
    single, half = mixed((data, valid, labels, weight)), mixed((data.to(dtype), valid, labels, weight))
    assert half.data.dtype == dtype
    assert half.labels.dtype == labels.dtype
    assert half.weight.dtype == torch.float32
    assert all(torch.equal(one, two) for one, two in zip(single[1:], half[1:], strict=True))
    torch.testing.assert_close(half.data.float(), single.data, rtol=0, atol=0.02)


def test_autocast_changes_nothing():
    parts = painted(heart((12, 14), 6), heart((25, 22), 7))
    with torch.autocast("cpu", torch.bfloat16):
        inside = mixed(parts)
    assert all(torch.equal(one, two) for one, two in zip(inside, mixed(parts), strict=True))


def loop_counterparts(decoded, source, n_frames):
    """Windows in order, then context in order, clip by clip."""
    expected = []
    for b, other in enumerate(source):
        windows = decoded[b], decoded[other]
        here, there = ([*window, *(t for t in range(n_frames) if t not in window)] for window in windows)
        expected.append([there[here.index(t)] for t in range(n_frames)])
    return expected


def test_windows_meet_windows_and_context_meets_context():
    decoded = [[0, 1, 2], [2, 3, 4], [1, 2, 4]]
    source = [1, 2, 0]
    found = counterparts(torch.tensor(decoded), torch.tensor(source), 5)
    assert found.tolist() == loop_counterparts(decoded, source, 5)
    assert found[0].tolist() == [2, 3, 4, 0, 1]


def test_a_pasted_heart_keeps_its_order_wherever_the_windows_lie():
    # Window 0 1 2 of the target, 1 2 3 of the source; what is pasted shows by its grey value which frame it is of.
    region = disc((20, 20), 8).short()[None]
    data, valid, labels, weight = painted(region, region)
    for frame in range(FRAMES):
        data[1, :, frame] = torch.where(labels[1, :, frame] == 1, 10.0 + frame, 0.0)
    weight = torch.stack((weight[0], torch.tensor([0.1, 0.2, 0.3, 0.4])))
    parts = data, valid, labels, weight
    result = mixed(parts, mix=CrossMix(1.0, 2), decoded=torch.tensor([[0, 1, 2], [1, 2, 3]]))
    middle = result.data[0, 0, :, 20, 20]
    assert (middle[:3].diff() > 0).all()
    assert middle[3] < middle[0]
    torch.testing.assert_close(result.weight[0, 0, :, 20, 20], torch.tensor([0.2, 0.3, 0.4, 0.1]))


def test_nothing_is_pasted_from_one_view_into_another():
    views = torch.tensor([0, 1, 0, 2, 1, 0])
    for seed in range(20):
        source, wanted, _ = ALWAYS._draw(views, SIDE, torch.Generator().manual_seed(seed))
        assert (views[source] == views).all()
        assert wanted.any(1).tolist() == [True, True, True, False, True, True]
        assert (source != torch.arange(6)).tolist() == wanted.any(1).tolist()
    parts = painted(heart((12, 14), 6), heart((25, 22), 6))
    assert_frames_unchanged(parts, mixed(parts, views=torch.tensor([0, 1])))


def test_hearts_that_beat_smoothly_cost_the_boundary_constraint_next_to_nothing_when_mixed():
    # Radii grow or shrink at constant speed in windows; context is far away in time, before or behind the window.
    decoded = torch.tensor([[2, 3, 4, 5], [0, 1, 2, 3], [1, 2, 3, 4]])
    radii = [[3, 18, 10, 10.5, 11, 11.5], [14, 13.5, 13, 12.5, 6, 18], [17, 12, 12.5, 13, 13.5, 5]]
    hearts = [
        torch.cat([disc(centre, radius, [(0, 0)], 64) for radius in row]).short()[None]
        for centre, row in zip(((30, 30), (34, 28), (31, 35)), radii, strict=True)
    ]
    parts = painted(*hearts)
    constraint = CrossFrameBoundaryLoss(BoundaryBand.of_image((64, 64)), exclusive=True)
    costs = []
    for seed in range(10):
        mix = mixed(parts, seed, CrossMix(1.0, 2), decoded=decoded)
        window = Window.of_clips(mix, torch.zeros(3, 6, dtype=torch.bool), parts[1], decoded)
        hearts_shown = window.labels == 1
        predicted = torch.cat((~hearts_shown, hearts_shown), 1).float()
        costs.append(constraint(predicted, -predicted, window.labelled, window.valid, ~window.seam))
        assert window.seam.any()
    # A seam leaves a pixel here and there; context in the place of windows would cost a hundred times as much.
    assert max(costs) < 1e-3
