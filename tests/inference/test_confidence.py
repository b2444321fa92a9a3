"""How sure masks of frames are, against plain loops, and the file that says so."""

import numpy as np
import pytest
import torch

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.confidence import confidence_of, read_confidence, write_confidence


def expected_confidence(probabilities, overlapping):
    """Say in plain loops how sure the masks of frames (K, N, Y, X) are."""
    sure = []
    for frame in probabilities.transpose(1, 0, 2, 3):
        foreground, background = [], []
        for channels in frame.reshape(len(frame), -1).T:
            if overlapping:
                is_foreground, certainty = max(channels) > 0.5, min(max(p, 1 - p) for p in channels)
            else:
                is_foreground, certainty = channels.argmax() > 0, max(channels)
            (foreground if is_foreground else background).append(certainty)
        sure.append(np.mean(foreground) if foreground else min(background))
    return sure


@pytest.mark.parametrize("overlapping", [False, True])
def test_masks_are_as_sure_as_their_foreground_and_empty_ones_as_their_least_sure_pixel(overlapping):
    logits = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(1)) * 2
    logits[1:, 2] -= 12  # a frame without foreground
    logits[0, 2] += 12 if not overlapping else -12
    probabilities = logits.sigmoid() if overlapping else logits.softmax(0)
    found = confidence_of(probabilities, overlapping=overlapping)
    np.testing.assert_allclose(found, expected_confidence(probabilities.numpy(), overlapping), rtol=1e-5)
    assert found[2] > 0.99 > max(found[:2])


@pytest.mark.parametrize("overlapping", [False, True])
def test_drawn_masks_are_quite_sure(overlapping):
    masks = torch.zeros(2, 2, 4, 4)
    masks[1, 0, 1:3, 1:3] = 1
    masks[0] = 0 if overlapping else 1 - masks[1]
    assert confidence_of(masks, overlapping=overlapping) == [1, 1]


def test_what_is_written_is_read_again(tmp_path):
    file = tmp_path / "a_confidence.csv"
    write_confidence({0: np.array([0.25, np.nan]), 2: np.array([1.0, 0.5])}, file)
    assert file.read_text().splitlines()[:3] == ["slice,frame,confidence", "0,0,0.2500", "0,1,"]
    found = read_confidence(file)
    assert sorted(found) == [0, 2]
    np.testing.assert_array_equal(found[0], [0.25, np.nan])
    np.testing.assert_array_equal(found[2], [1, 0.5])


def test_a_sequence_without_slices_has_none(tmp_path):
    write_confidence({None: np.array([0.75])}, tmp_path / "a.csv")
    assert {z: values.tolist() for z, values in read_confidence(tmp_path / "a.csv").items()} == {None: [0.75]}


@pytest.mark.parametrize("content", ["slice,frame\n0,0\n", "slice,frame,confidence\n0,0,sure\n"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=r"a\.csv: cannot be read .*predict again"):
        read_confidence(tmp_path / "a.csv")
