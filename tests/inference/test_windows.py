"""Windows are nnU-Net's, and put together they are what they were cut from."""

import itertools

import pytest
import torch
from nnunetv2.inference.sliding_window_prediction import compute_gaussian

from nnunet_temporal.inference.windows import Windows

SIZES = [(40, 36), (48, 48), (64, 48), (100, 71), (30, 90)]


def frames(size):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("axes", [(), (0,), (1,), (0, 1)])
def test_what_was_cut_is_put_together_again(size, axes):
    windows, image = Windows(size, (48, 48), axes), frames(size)
    cut = windows.cut(image)
    assert cut.shape == (windows.copies, 2, 3, 48, 48)
    torch.testing.assert_close(windows.join(cut), image)


def test_windows_overlap_by_half_and_count_by_a_gaussian():
    windows = Windows((96, 48), (48, 48))
    assert windows.corners == [(0, 0), (24, 0), (48, 0)]
    weight = compute_gaussian((48, 48), value_scaling_factor=10, dtype=torch.float32, device=torch.device("cpu"))
    logits = torch.arange(3.0)[:, None, None, None, None].expand(3, 1, 1, 48, 48)
    joined = windows.join(logits)[0, 0]
    for y in range(96):
        covering = [(number, y - top) for number, (top, _) in enumerate(windows.corners) if top <= y < top + 48]
        total = sum(weight[inside] for _, inside in covering)
        mean = sum(number * weight[inside] for number, inside in covering) / total
        torch.testing.assert_close(joined[y], mean)


def test_mirrored_copies_are_all_combinations_of_axes_and_count_alike():
    windows, image = Windows((48, 48), (48, 48), (0, 1)), frames((48, 48))
    cut = windows.cut(image)
    flips = [axes for number in range(3) for axes in itertools.combinations((-2, -1), number)]
    for copy, axes in zip(cut, flips, strict=True):
        torch.testing.assert_close(copy, image.flip(axes))
    noise = torch.randn(cut.shape, generator=torch.Generator().manual_seed(1))
    expected = sum(copy.flip(axes) for copy, axes in zip(noise, flips, strict=True)) / 4
    torch.testing.assert_close(windows.join(noise), expected)


def test_no_frames_at_all_can_pass():
    windows = Windows((64, 40), (48, 48), (0,))
    assert windows.join(windows.cut(torch.zeros(2, 0, 64, 40))).shape == (2, 0, 64, 40)
