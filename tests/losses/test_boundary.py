"""Cross-frame boundary constraint: free for smooth motion, local where a contour jumps, silent where nobody knows."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from torch.nn import functional

from nnunet_temporal.losses.boundary import BoundaryBand, CrossFrameBoundaryLoss, signed_distance

SIZE = 48
BAND = BoundaryBand(1, 5)


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def blobs(*shape, size=12, seed=0):
    """Smooth probabilities (*shape, size, size)."""
    coarse = functional.interpolate(random(math.prod(shape), 1, 4, 4, seed=seed), (size, size), mode="bicubic")
    return torch.sigmoid(12 * (coarse - 0.5)).view(*shape, size, size)


def disc(radii, centre=(24, 24), speed=(0, 0), bumps=None, hollow=None):
    """Probabilities (1, 1, W, Y, X) of a disc, or of a ring; ``bumps`` are the waves on each frame's contour."""
    frames = []
    for frame, radius in enumerate(radii):
        y, x = (torch.arange(SIZE) + 0.5 - (centre[axis] + frame * speed[axis]) for axis in (0, 1))
        radius = radius + (bumps[frame] if bumps else 0) * torch.cos(5 * torch.atan2(y[:, None], x))
        outside = torch.hypot(y[:, None], x) - radius
        frames.append(outside if hollow is None else torch.maximum(outside, -outside - hollow))
    return torch.sigmoid(-torch.stack(frames))[None, None]


def loss_of(probabilities, truth=None, labelled=(), padding=(), counted=None, band=BAND, exclusive=False, **options):
    """Compute the loss of clips whose frames ``labelled`` have a ``truth`` and whose frames ``padding`` are padding."""
    shape = probabilities.shape[0], probabilities.shape[2]
    is_labelled, valid = torch.zeros(shape).bool(), torch.ones(shape).bool()
    is_labelled[:, list(labelled)], valid[:, list(padding)] = True, False
    truth = torch.full_like(probabilities, -1) if truth is None else truth
    loss = CrossFrameBoundaryLoss(band, exclusive=exclusive, **options)
    return loss(probabilities, truth, is_labelled, valid, counted)


def gradients(probabilities, **options):
    """Return the gradient of the loss with respect to the probabilities."""
    probabilities = probabilities.clone().requires_grad_()
    loss_of(probabilities, **options).backward()
    return probabilities.grad


def exact_distance(mask, limit):
    if mask.all() or not mask.any():
        return np.full(mask.shape, -limit if mask.all() else limit)
    outside, inside = distance_transform_edt(~mask) - 0.5, distance_transform_edt(mask) - 0.5
    return np.where(mask, -inside, outside).clip(-limit, limit)


def rim(distance):
    """Length of a contour: half the pixels on both of its sides."""
    return (np.abs(distance) <= 0.5).sum() / 2


def pulled_frames(frames, reference):
    if reference == "interpolated":
        return [(t, t - 1, t + 1) for t in range(1, frames - 1)]
    return [(t, t + side, t + side) for t in range(frames) for side in (-1, 1) if 0 <= t + side < frames]


def plain_loss(p, truth, labelled, valid, counted, exclusive, reference):
    """The definition, pixel by pixel."""
    shares = []
    for b in range(p.shape[0]):
        for k in range(int(exclusive), p.shape[1]):
            masks = p[b, k].detach().clone()
            for t in range(p.shape[2]):
                masks[t] = torch.where(labelled[b, t] & (truth[b, k, t] >= 0), truth[b, k, t], masks[t])
            distances = [exact_distance(mask.numpy() > 0.5, BAND.limit) for mask in masks]
            cost, length = 0, 0
            for t, one, other in pulled_frames(p.shape[2], reference):
                if labelled[b, t] or not valid[b, [t, one, other]].all():
                    continue
                if 0 in (rim(distances[one]), rim(distances[other])):
                    continue
                length += (rim(distances[one]) + rim(distances[other])) / 2
                for y, x in zip(*np.nonzero(counted[b, 0, t].numpy()), strict=True):
                    r = (distances[one][y, x] + distances[other][y, x]) / 2
                    wrong = p[b, k, t, y, x] - 0.5 if r > 0 else 0.5 - p[b, k, t, y, x]
                    cost = cost + max(abs(r) - BAND.dead_zone, 0) / BAND.limit * max(wrong, 0 * wrong)
            if length:
                shares.append(cost / length)
    return sum(shares) / len(shares)


@pytest.mark.parametrize("limit", [1.0, 2.5, 5.0, 10.0])
def test_the_signed_distance_is_the_exact_one_within_the_limit(limit):
    masks = torch.cat((blobs(2, 3, size=40) > 0.5, random(2, 1, 40, 40, seed=1) > 0.97), 1)[..., :31]
    exact = np.stack([exact_distance(mask, limit) for mask in masks.flatten(0, 1).numpy()])
    distance = signed_distance(masks, limit)
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance.flatten(0, 1).double(), torch.from_numpy(exact), rtol=0, atol=1e-5)


def test_the_largest_limit_is_still_exact_and_a_larger_one_is_refused():
    mask = torch.zeros(200, 180).bool()
    mask[3, 5] = True
    for side in (mask, ~mask):
        exact = torch.from_numpy(exact_distance(side.numpy(), 179.0)).float()
        torch.testing.assert_close(signed_distance(side, 179), exact)
    with pytest.raises(ValueError, match="179 pixels, got a limit of 180"):
        signed_distance(mask, 180)


def test_a_mask_without_contour_is_the_limit_away():
    assert (signed_distance(torch.zeros(2, 7, 1).bool(), 3.5) == 3.5).all()
    assert (signed_distance(torch.ones(7, 9).bool(), 3.5) == -3.5).all()


@pytest.mark.parametrize(
    ("size", "band"),
    [((256, 256), (2, 10)), ((512, 600), (4, 20)), ((160, 192), (1.25, 6.25)), ((64, 256), (1, 5)), ((8, 8), (1, 5))],
)
def test_the_band_follows_the_shorter_side_down_to_a_dead_zone_of_one_pixel(size, band):
    assert BoundaryBand.of_image(size) == band


@pytest.mark.parametrize("band", [(-1, 5), (5, 5), (0, 0.5)])
def test_a_band_without_width_is_refused(band):
    with pytest.raises(ValueError, match="dead zone"):
        CrossFrameBoundaryLoss(BoundaryBand(*band), exclusive=True)


def test_an_unknown_reference_is_refused():
    with pytest.raises(ValueError, match="interpolated, adjacent"):
        CrossFrameBoundaryLoss(BAND, exclusive=True, reference="nearest")


@pytest.mark.parametrize("reference", ["interpolated", "adjacent"])
@pytest.mark.parametrize("exclusive", [True, False])
def test_it_equals_the_loop_reference_in_values_and_gradients(reference, exclusive):
    p = blobs(2, 3, 5).requires_grad_()
    # Class 1 leaves the second clip in its second frame; a labelled frame knows only some pixels.
    with torch.no_grad():
        p[1, 1, 1] *= 0.4
    truth = torch.where(random(*p.shape, seed=5) < 0.2, -1, (blobs(2, 3, 5, seed=4) > 0.5).float())
    labelled = torch.tensor([[False, False, False, True, False], [True, False, False, False, False]])
    valid = torch.tensor([[True] * 5, [True] * 4 + [False]])
    counted = random(2, 1, 5, 12, 12, seed=6) > 0.3
    arguments = (p, truth, labelled, valid, counted)
    ours = CrossFrameBoundaryLoss(BAND, exclusive=exclusive, reference=reference)(*arguments)
    plain = plain_loss(*arguments, exclusive, reference)
    assert ours > 0.01
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(*(torch.autograd.grad(loss, p)[0] for loss in (ours, plain)))


@pytest.mark.parametrize("reference", ["interpolated", "adjacent"])
def test_static_contours_cost_nothing_even_without_a_dead_zone(reference):
    static = blobs(3, 2, 1, size=SIZE).repeat(1, 1, 4, 1, 1)
    assert loss_of(static, band=BoundaryBand(0, 5), reference=reference) == 0


@pytest.mark.parametrize("phase", range(10))
def test_contours_at_constant_speed_cost_nothing_at_any_sub_pixel_phase(phase):
    start, shrinks, *speed = random(4, seed=phase).tolist()
    radii = [16 + start - 3 * shrinks * frame for frame in range(4)]
    centre = (22 + 2 * speed[0], 22 + 2 * speed[1])
    clip = disc(radii, centre, speed=(2 * speed[0] - 1, 2 * speed[1] - 1))
    assert loss_of(clip) == 0
    assert loss_of(clip.flip(-1).mT) == 0


def test_acceleration_costs():
    assert loss_of(disc([18, 17, 12, 11])) > 0


def test_neighbours_taken_one_by_one_allow_motion_within_the_dead_zone_only():
    slow, fast = disc([16, 15.5, 15, 14.5]), disc([18, 15, 12, 9])
    assert loss_of(slow, reference="adjacent") == 0
    assert loss_of(fast, reference="adjacent") > 0
    assert loss_of(fast) == 0


def test_a_thin_wall_may_move_by_half_its_thickness_and_the_dead_zone():
    slow, fast = ([20 - speed * frame for frame in range(3)] for speed in (3, 6))
    assert loss_of(disc(slow, hollow=5)) == 0
    assert loss_of(disc(fast, hollow=5)) > 0


def test_one_bumpy_frame_is_pulled_and_its_neighbours_hardly():
    gradient = gradients(disc([14] * 7, bumps=[0, 0, 0, 4, 0, 0, 0]))[0, 0]
    at_frame = gradient.abs().sum((1, 2))
    assert at_frame[3] > 10 * at_frame[[2, 4]].max() > 0
    assert (at_frame[[0, 1, 5, 6]] == 0).all()


def test_descent_takes_the_bump_away():
    clip = disc([14] * 3, bumps=[0, 4, 0])
    pull = gradients(clip)[0, 0, 1]
    disc_pixels, bumpy_pixels = clip[0, 0, :2] > 0.5
    assert (bumpy_pixels & ~disc_pixels)[pull > 0].all()
    assert (disc_pixels & ~bumpy_pixels)[pull < 0].all()
    assert pull.max() > 0 > pull.min()


@pytest.mark.parametrize("reference", ["interpolated", "adjacent"])
def test_time_has_no_direction(reference):
    clip = blobs(2, 2, 5)
    torch.testing.assert_close(loss_of(clip, reference=reference), loss_of(clip.flip(2), reference=reference))


def test_no_gradient_runs_through_the_neighbours():
    gradient = gradients(blobs(2, 2, 3))
    assert (gradient[:, :, [0, 2]] == 0).all()
    assert (gradient[:, :, 1] != 0).any()


def test_a_class_that_a_neighbour_does_not_show_has_no_part():
    p = blobs(1, 2, 3)
    alone = loss_of(p[:, :1])
    for without_contour in (0.2, 0.9):
        p[:, 1, 2] = without_contour
        torch.testing.assert_close(loss_of(p), alone)
        assert (gradients(p)[:, 1] == 0).all()


def test_a_frame_that_loses_a_class_between_two_that_show_it_is_pulled_back():
    clip = disc([14, 14, 14])
    clip[:, :, 1] = 0.2
    gradient = gradients(clip)[0, 0, 1]
    assert (gradient < 0).any()
    assert (gradient <= 0).all()


@pytest.mark.parametrize(
    ("frames", "options"),
    [
        (1, {}),
        (1, {"reference": "adjacent"}),
        (2, {}),
        (4, {"labelled": [1, 2]}),
        (4, {"padding": [2, 3]}),
        (4, {"padding": [0, 1, 2, 3]}),
        (4, {"counted": torch.zeros(2, 1, 4, 12, 12).bool()}),
    ],
)
def test_where_nothing_can_be_pulled_it_is_zero_with_a_graph(frames, options):
    p = blobs(2, 2, frames).requires_grad_()
    loss = loss_of(p, **options)
    loss.backward()
    assert loss == 0
    assert (p.grad == 0).all()


def test_classes_are_averaged_and_the_background_is_none_of_them():
    p = blobs(1, 3, 4)
    p[:, 2] = p[:, 2, :1]  # a class that costs nothing still counts
    each = [loss_of(p[:, k : k + 1]) for k in range(3)]
    torch.testing.assert_close(loss_of(p), sum(each) / 3)
    torch.testing.assert_close(loss_of(p, exclusive=True), (each[1] + each[2]) / 2)
    assert (gradients(p, exclusive=True)[:, 0] == 0).all()


def test_labelled_frames_show_the_truth_and_are_not_pulled():
    p, truth = disc([14] * 3, bumps=[4, 0, 4]), disc([14] * 3).round()
    assert loss_of(p) > 0
    assert loss_of(p, truth, labelled=[0, 2]) == 0
    assert loss_of(p, disc([20] * 3).round(), labelled=[0, 2]) > 0
    bumpy = disc([14] * 5, bumps=[0, 0, 4, 0, 0])
    at_frame = gradients(bumpy, truth=bumpy.round(), labelled=[2])[0, 0].abs().sum((1, 2))
    assert at_frame[2] == 0
    assert at_frame[1] > 0


def test_what_a_labelled_frame_does_not_know_is_predicted():
    p, truth = blobs(1, 2, 3), (blobs(1, 2, 3, seed=1) > 0.5).float()
    known = random(*p.shape, seed=2) < 0.5
    both = torch.where(known, truth, p)
    both[:, :, 1] = p[:, :, 1]
    assert loss_of(p, truth.where(known, -1), labelled=[0, 2]) == loss_of(both) != loss_of(p)


def test_padding_frames_leave_no_trace():
    p = blobs(2, 2, 5)
    padded = p.clone()
    padded[:, :, 4] = torch.nan
    torch.testing.assert_close(loss_of(padded, padding=[4]), loss_of(p[:, :, :4]))
    assert (gradients(padded, padding=[4])[:, :, 4] == 0).all()
    torch.testing.assert_close(gradients(padded, padding=[4])[:, :, :4], gradients(p[:, :, :4]))


def test_pixels_that_do_not_count_get_no_gradient():
    p, counted = blobs(2, 2, 4), random(2, 1, 4, 12, 12, seed=1) > 0.5
    some, every = gradients(p, counted=counted), gradients(p)
    torch.testing.assert_close(some, every * counted)
    assert not torch.equal(some, every)


def test_clips_do_not_see_each_other():
    p = blobs(2, 2, 4)
    alone = [gradients(p[b : b + 1]) for b in (0, 1)]
    torch.testing.assert_close(gradients(p), torch.cat(alone) / 2)
    torch.testing.assert_close(loss_of(p), (loss_of(p[:1]) + loss_of(p[1:])) / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_handled_in_float32_under_autocast(dtype):
    p = blobs(2, 2, 4).to(dtype)
    with torch.autocast("cpu", dtype):
        loss, gradient = loss_of(p), gradients(p)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, loss_of(p.float()), rtol=1e-6, atol=0)
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()
    assert (gradient != 0).any()
