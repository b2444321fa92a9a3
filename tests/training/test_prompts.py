"""Masks of first frames: one-hot where they are known, unknown where nobody labelled or nothing is given away."""

import torch

from nnunet_temporal.training.prompts import UNKNOWN, first_masks

PROMPTED = torch.tensor([True, False])


def test_labels_become_one_hot_masks_of_the_first_frame():
    target = torch.tensor([[[0, 2], [3, 1]], [[1, 1], [1, 1]]], dtype=torch.int16).view(2, 1, 2, 1, 2)
    masks = first_masks(target, PROMPTED, 3, ignore_label=3, has_regions=False)
    assert masks.shape == (2, 3, 1, 2)
    assert masks[0, :, 0].T.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert (masks[1] == UNKNOWN).all()


def test_ignored_pixels_are_unknown():
    target = torch.tensor([3, 1], dtype=torch.int16).view(1, 1, 1, 1, 2)
    masks = first_masks(target, PROMPTED[:1], 3, ignore_label=3, has_regions=False)
    assert masks[0, :, 0].T.tolist() == [[UNKNOWN] * 3, [0, 1, 0]]


def test_regions_are_taken_as_they_are():
    target = torch.tensor([[1, 1, 0], [0, 1, 1]]).T.bool().view(1, 3, 1, 1, 2)
    masks = first_masks(target, PROMPTED[:1], 2, ignore_label=3, has_regions=True)
    assert masks[0, :, 0].T.tolist() == [[1, 1], [UNKNOWN] * 2]
