"""Windows over the valid frames of the past, against a plain loop."""

import pytest
import torch

from nnunet_temporal.networks.frame_history import with_history


def reference(frames, past, valid):
    """Keep a list of the last frames, frame by frame."""
    windows, pasts = [], []
    for row in range(len(frames)):
        last, of_row = list(past[row]), []
        for frame, is_valid in zip(frames[row], valid[row], strict=True):
            of_row.append(torch.stack([*last, frame]))
            last = [*last, frame][1:] if is_valid else last
        windows.append(torch.stack(of_row))
        pasts.append(torch.stack(last))
    return torch.stack(windows), torch.stack(pasts)


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("seed", range(3))
def test_windows_hold_the_last_valid_frames_whatever_is_invalid(width, frames, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, frames, 2, generator=generator)
    past = torch.randn(3, width, 2, generator=generator)
    valid = torch.rand(3, frames, generator=generator) < 0.6
    torch.testing.assert_close(with_history(x, past, valid), reference(x, past, valid), atol=0, rtol=0)


def test_the_past_that_is_kept_is_no_view_of_the_clip():
    frames, valid = torch.randn(1, 50, 2), torch.ones(1, 50, dtype=torch.bool)
    _, past = with_history(frames, torch.zeros(1, 2, 2), valid)
    assert past.untyped_storage().nbytes() == past.nbytes
