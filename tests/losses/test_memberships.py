"""Label maps as memberships: one channel per output, nothing known where nobody labelled."""

import pytest
import torch

from nnunet_temporal.losses.memberships import memberships_of

LABELS = torch.tensor([0, 1, 2, 3], dtype=torch.int16).view(1, 1, 1, 2, 2)


def test_exclusive_labels_are_one_hot_with_the_background():
    members, known = memberships_of(LABELS, 3, ignore_label=3)
    assert members.dtype == torch.float32
    assert members.flatten(2)[0].T.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert known.shape == LABELS.shape
    assert known.flatten().tolist() == [True, True, True, False]


def test_regions_hold_all_their_labels_and_single_ones():
    members, known = memberships_of(LABELS, 2, ignore_label=None, regions=[(1, 2), 3])
    assert members.flatten(2)[0].T.tolist() == [[0, 0], [1, 0], [1, 0], [0, 1]]
    assert known.all()


def test_an_ignored_pixel_is_in_no_region():
    members, known = memberships_of(LABELS, 1, ignore_label=3, regions=[(1, 3)])
    assert members.flatten().tolist() == [0, 1, 0, 0]
    assert known.flatten().tolist() == [True, True, True, False]


def test_the_number_of_regions_is_that_of_the_outputs():
    with pytest.raises(ValueError, match="3 outputs"):
        memberships_of(LABELS, 3, ignore_label=3, regions=[(1, 2), 2])
