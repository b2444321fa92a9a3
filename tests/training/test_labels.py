"""The ignore label that every temporal dataset needs."""

import copy

import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_temporal.training.labels import with_ignore_label


@pytest.mark.parametrize(
    ("labels", "ignore"),
    [
        ({"background": 0, "lv": 1}, 2),
        ({"background": 0, "heart": [1, 2, 3], "lv": (3, 5)}, 6),
        ({"background": 0, "lv": 1, "ignore": 2}, 2),
    ],
)
def test_the_ignore_label_is_the_next_free_value_or_the_one_that_exists(labels, ignore):
    dataset = {"labels": labels, "channel_names": {"0": "MRI"}}
    before = copy.deepcopy(dataset)
    completed = with_ignore_label(dataset)
    assert completed == {**before, "labels": {**labels, "ignore": ignore}}
    assert dataset == before


def test_nnunet_accepts_the_label_and_predicts_no_channel_for_it():
    labels = {"background": 0, "heart": [1, 2], "lv": 2}
    completed = with_ignore_label({"labels": labels})["labels"]
    before, after = (LabelManager(entries, [1, 2]) for entries in (labels, completed))
    assert after.ignore_label == 3
    assert after.num_segmentation_heads == before.num_segmentation_heads
