"""Patch-level memory matching against plain loops, and the promises its docstrings make."""

import math

import pytest
import torch

from nnunet_temporal.errors import InputError
from nnunet_temporal.networks import patch_matching
from nnunet_temporal.networks.patch_matching import (
    BestPatches,
    affinity,
    best_patches,
    fold_patches,
    read_patches,
    unfold_patches,
)

B, T, C, V = 2, 2, 3, 2
SIZE, PATCH, TOP_K = (6, 8), 4, 3


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def maps(size=SIZE, frames=T, batch=B):
    """Query keys, memory keys, memory values."""
    return (
        noise(batch, C, *size, seed=1),
        noise(batch, frames, C, *size, seed=2),
        noise(batch, frames, V, *size, seed=3),
    )


def everything(batch=B, frames=T):
    return torch.ones(batch, frames, dtype=torch.bool)


def corners(size, patch):
    """Upper left corners of the patches, in the order of their indices."""
    step = patch // 2
    return [(y, x) for y in range(0, size[0] - patch + 1, step) for x in range(0, size[1] - patch + 1, step)]


def pixels_of(corner, patch):
    return [(corner[0] + y, corner[1] + x) for y in range(patch) for x in range(patch)]


def reference_best(query, memory, written, patch, number):
    """Rank memory patches by the distance of all their pixels: lists of (frame, patch) per query patch."""
    places, chosen = corners(query.shape[-2:], patch), []
    for here in places:
        scores = {}
        for t in range(memory.shape[0]):
            for n, there in enumerate(places):
                if written[t]:
                    pairs = zip(pixels_of(here, patch), pixels_of(there, patch), strict=True)
                    scores[t, n] = -sum(
                        (query[:, y, x] - memory[t, :, v, u]).square().sum() for (y, x), (v, u) in pairs
                    )
        chosen.append(sorted(scores, key=lambda place: -scores[place])[:number])
    return chosen


def reference_read(query, keys, values, chosen, patch):
    """Read pixel by pixel, then average what the patches over a pixel say."""
    places, size = corners(query.shape[-2:], patch), query.shape[-2:]
    said = {pixel: [] for pixel in [(y, x) for y in range(size[0]) for x in range(size[1])]}
    for here, best in zip(places, chosen, strict=True):
        remembered = [(t, y, x) for t, n in best for y, x in pixels_of(places[n], patch)]
        for y, x in pixels_of(here, patch):
            distances = [(query[:, y, x] - keys[t, :, v, u]).square().sum() for t, v, u in remembered]
            likeness = torch.stack([-distance / math.sqrt(query.shape[0]) for distance in distances]).exp()
            weighted = [w * values[t, :, v, u] for w, (t, v, u) in zip(likeness, remembered, strict=True)]
            said[y, x].append(sum(weighted) / likeness.sum())
    rows = [[sum(said[y, x]) / len(said[y, x]) for x in range(size[1])] for y in range(size[0])]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def dense(query, keys, values):
    """Every pixel reads from every pixel of the memory (STCN)."""
    flat = query.flatten(2).transpose(1, 2)
    remembered = keys.transpose(2, 3).transpose(3, 4).flatten(1, 3)
    distances = torch.cdist(flat, remembered).square()
    weights = (-distances / math.sqrt(query.shape[1])).softmax(-1)
    read = weights @ values.transpose(2, 3).transpose(3, 4).flatten(1, 3)
    return read.transpose(1, 2).unflatten(2, query.shape[-2:])


def match(query, keys, values, patch=PATCH, top_k=TOP_K, written=None):
    written = everything(*keys.shape[:2]) if written is None else written
    return read_patches(query, keys, values, best_patches(query, keys, written, patch, top_k), patch)


def as_sets(best, patches_per_frame):
    return [[{divmod(int(index), patches_per_frame) for index in row} for row in sample] for sample in best.indices]


def test_the_best_patches_are_those_of_smallest_distance():
    query, keys, _ = maps()
    best = best_patches(query, keys, everything(), PATCH, TOP_K)
    expected = [reference_best(query[b], keys[b], [True] * T, PATCH, TOP_K) for b in range(B)]
    n_patches = len(corners(SIZE, PATCH))
    assert as_sets(best, n_patches) == [[set(row) for row in sample] for sample in expected]
    assert best.indices.shape == best.found.shape == (B, n_patches, TOP_K)
    assert best.found.all()


def test_reading_equals_its_loop_reference_in_values_and_gradients():
    results = []
    for function in (match, None):
        query, keys, values = (x.requires_grad_() for x in maps())
        if function is not None:
            read = function(query, keys, values)
        else:
            chosen = [reference_best(query[b], keys[b], [True] * T, PATCH, TOP_K) for b in range(B)]
            read = torch.stack([reference_read(query[b], keys[b], values[b], chosen[b], PATCH) for b in range(B)])
        gradients = torch.autograd.grad((read * noise(*read.shape, seed=9)).sum(), (query, keys, values))
        results.append((read.detach(), gradients))
    torch.testing.assert_close(*results)


def test_gradients_agree_with_finite_differences():
    query, keys, values = (x.requires_grad_() for x in maps((4, 4), frames=2, batch=1))
    best = best_patches(query, keys, everything(1, 2), 2, 2)
    assert torch.autograd.gradcheck(lambda *x: read_patches(*x, best, 2), (query, keys, values))


def test_one_patch_as_large_as_the_frame_and_all_frames_is_dense_matching():
    query, keys, values = maps((6, 6))
    torch.testing.assert_close(match(query, keys, values, 6, T), dense(query, keys, values), atol=1e-6, rtol=0)


def test_the_swapped_sign_does_not_recall_a_frame_that_is_in_the_memory(monkeypatch):
    # Keys far apart: each pixel is like itself only.
    _, keys, values = maps()
    keys = 1000 * keys
    error = {}
    for sign in (1, -1):
        monkeypatch.setattr(patch_matching, "affinity", lambda q, m, sign=sign: sign * affinity(q, m))
        error[sign] = (match(keys[:, 1], keys, values) - values[:, 1]).abs().max()
    assert error[1] < 1e-12
    assert error[-1] > 1


def test_affinity_is_the_negative_squared_distance_up_to_a_term_of_the_query():
    query, memory = noise(4, C, seed=1), noise(5, C, seed=2)
    expected = -torch.cdist(query, memory).square() + query.square().sum(-1, keepdim=True)
    torch.testing.assert_close(affinity(query, memory), expected)


@pytest.mark.parametrize("shift", range(5))
def test_an_object_that_has_moved_is_found_again(shift):
    frame = 30 * noise(1, C, 12, 12, seed=5)
    mask = torch.zeros(1, 1, 12, 12, dtype=torch.float64)
    mask[..., 4:8, 2:6] = 1
    moved, truth = (x.roll(shift, -1) for x in (frame, mask))
    read = match(moved, frame[:, None], mask[:, None], 6, 25)
    assert torch.equal(read[..., shift:] > 0.5, truth[..., shift:] > 0.5)


@pytest.mark.parametrize("top_k", [TOP_K, T * len(corners(SIZE, PATCH)), 1000])
def test_more_patches_than_there_are_means_all_of_them(top_k):
    query, keys, values = maps()
    available = T * len(corners(SIZE, PATCH))
    assert best_patches(query, keys, everything(), PATCH, top_k).indices.shape[-1] == min(top_k, available)
    assert match(query, keys, values, top_k=top_k).isfinite().all()


def test_the_order_of_the_memory_does_not_matter():
    query, keys, values = maps()
    torch.testing.assert_close(match(query, keys, values), match(query, keys.flip(1), values.flip(1)))


def test_a_constant_memory_is_recalled_as_that_constant():
    query, keys, values = maps()
    torch.testing.assert_close(match(query, keys, 0 * values + 7), torch.full((B, V, *SIZE), 7.0, dtype=torch.float64))


@pytest.mark.parametrize("top_k", [2, 100])
def test_frames_that_are_not_written_are_never_read(top_k):
    query, keys, values = maps()
    written = everything()
    written[0, 1] = written[1, :2] = False
    read = match(query, keys, values, top_k=top_k, written=written)
    for b in range(B):
        kept = written[b]
        alone = match(query[[b]], keys[[b]][:, kept], values[[b]][:, kept], top_k=top_k)
        torch.testing.assert_close(read[[b]], alone)


def test_an_empty_memory_recalls_nothing_and_has_finite_gradients():
    query, keys, values = (x.requires_grad_() for x in maps())
    read = match(query, keys, values, written=~everything())
    assert (read == 0).all()
    read.sum().backward()
    assert all(x.grad.isfinite().all() for x in (query, keys, values))


def test_scores_far_beyond_the_range_of_the_exponential_stay_finite():
    query, keys, values = maps()
    read = match(1e4 * query, 1e4 * keys, values)
    assert read.isfinite().all()


@pytest.mark.parametrize("patch", [2, 4, 6, 8])
def test_folding_unfolded_patches_gives_the_map_back(patch):
    x = noise(B, C, 24, 24)
    patches = unfold_patches(x, patch)
    assert patches.shape == (B, {2: 529, 4: 121, 6: 49, 8: 25}[patch], C, patch * patch)
    torch.testing.assert_close(fold_patches(patches, (24, 24), patch), x)


@pytest.mark.parametrize("patch", [2, 4, 6])
def test_every_pixel_lies_in_a_patch_and_in_four_at_most(patch):
    cover = [pixel for corner in corners((12, 18), patch) for pixel in pixels_of(corner, patch)]
    counts = (
        unfold_patches(torch.arange(12 * 18.0).view(1, 1, 12, 18), patch).flatten().long().bincount(minlength=12 * 18)
    )
    assert counts.tolist() == [cover.count((y, x)) for y in range(12) for x in range(18)]
    assert counts.min() == 1 and counts.max() == 4


def test_patches_of_the_fine_scale_lie_where_the_coarse_ones_do():
    query, keys, values = maps()
    best = best_patches(query, keys, everything(), PATCH, TOP_K)
    fine = [x.repeat_interleave(2, -1).repeat_interleave(2, -2) for x in (query, keys, values)]
    # Four equal pixels in place of one change neither the weights of their sum nor what is read.
    expected = read_patches(query, keys, values, best, PATCH).repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(read_patches(*fine, best, 2 * PATCH), expected)


@pytest.mark.parametrize(
    ("size", "patch", "message"),
    [
        ((6, 6), 3, "matching_patch must be even.*got 3"),
        ((6, 7), 4, r"4 x 4 pixels, 2 apart, do not tile a feature map of 6 x 7 .*multiples of 2, 4 or more"),
        ((10, 6), 6, "multiples of 3, 6 or more.*matching_patch or memory_stages"),
        ((2, 8), 4, "do not tile a feature map of 2 x 8"),
    ],
)
def test_patches_that_do_not_fit_raise_and_say_what_to_change(size, patch, message):
    query, keys, values = maps(size)
    with pytest.raises(InputError, match=message):
        match(query, keys, values, patch)


def test_a_fine_map_that_is_not_exactly_twice_as_large_raises():
    query, keys, values = maps((8, 8))
    best = BestPatches(*(x[:, :4] for x in best_patches(query, keys, everything(), 4, 2)))
    with pytest.raises(InputError, match="must be exactly twice those of the coarse one"):
        read_patches(query, keys, values, best, 4)
