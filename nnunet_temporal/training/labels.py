"""The ignore label, which sparse labels cannot do without."""

from collections.abc import Mapping
from typing import Any


def with_ignore_label(dataset_json: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``dataset.json`` whose labels include "ignore".

    A densely labelled dataset declares none, but padding of short sequences and small frames needs one. The number
    of output channels stays the same: nnU-Net predicts no ignore label.

    Args:
        dataset_json: Contents of ``dataset.json``; not changed. An existing ignore label is kept.
    """
    labels = dict(dataset_json["labels"])
    if "ignore" not in labels:
        values = [
            value for entry in labels.values() for value in (entry if isinstance(entry, list | tuple) else [entry])
        ]
        labels["ignore"] = max(values) + 1
    return {**dataset_json, "labels": labels}
