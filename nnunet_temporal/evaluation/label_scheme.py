"""What the labels of a dataset stand for: which one is the left ventricle, and which structures are scored."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_temporal.errors import InputError

ROLES = ("LV", "MYO", "RV", "LA")
# The left ventricle with its wall: what echo papers score as the epicardium.
EPI = "EPI"

_BACKGROUND, _IGNORE = "background", "ignore"
# Names in small letters, without anything but letters and digits.
_SYNONYMS = {
    "LV": "lv lvc lvcavity lvbp lvbloodpool lvendo lvendocardium leftventricle leftventriclecavity "
    "leftventricularcavity leftventricularbloodpool leftventricularendocardium",
    "MYO": "myo myocardium lvm lvmyo lvmyocardium lvwall leftventriclemyocardium leftventricularmyocardium",
    "RV": "rv rvc rvcavity rvbp rvbloodpool rvendo rvendocardium rightventricle rightventriclecavity "
    "rightventricularcavity rightventricularbloodpool",
    "LA": "la lac lacavity leftatrium leftatriumcavity leftatrialcavity",
}


@dataclass(frozen=True)
class LabelScheme:
    """The labels of a dataset.

    Attributes:
        values: Name to value of each label, without background and ignore label.
        ignore: Value of pixels that nobody labelled; None when the dataset has none.
        roles: Role (``LV``, ``MYO``, ``RV``, ``LA``) to the name of the label that plays it; only those found.
    """

    values: dict[str, int]
    ignore: int | None
    roles: dict[str, str]

    def structures(self) -> dict[str, tuple[int, ...]]:
        """Return what is scored, name to label values: every label, and the ventricle with its wall."""
        structures: dict[str, tuple[int, ...]] = {name: (value,) for name, value in self.values.items()}
        if {"LV", "MYO"} <= set(self.roles) and EPI not in structures:
            structures[EPI] = (self.values[self.roles["LV"]], self.values[self.roles["MYO"]])
        return structures

    def role_mask(self, labels: np.ndarray, role: str) -> np.ndarray | None:
        """Return where a label map of any shape holds the label of a role; None without such a label."""
        return labels == self.values[self.roles[role]] if role in self.roles else None


def structure_mask(labels: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
    """Return where a label map of any shape holds one of the values."""
    mask = labels == values[0]
    for value in values[1:]:
        mask = mask | (labels == value)
    return mask


def read_label_scheme(dataset_json: Path, roles: Mapping[str, int] | None = None) -> LabelScheme:
    """Read the labels of a dataset and find the roles among their names.

    Args:
        dataset_json: nnU-Net's ``dataset.json``.
        roles: Role to label value, for names that say nothing; they take precedence over the names.

    Returns:
        The labels.

    Raises:
        InputError: The file is unreadable, has regions instead of labels or no structure, two labels claim one role,
            or a given role or value does not exist.
    """
    try:
        labels = json.loads(Path(dataset_json).read_text(encoding="utf-8"))["labels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{dataset_json}: expected nnU-Net's dataset.json, but it cannot be read: {error!r}"
        ) from error
    return label_scheme_of(labels, dataset_json, roles)


def label_scheme_of(
    labels: Mapping[str, object], dataset_json: Path | str, roles: Mapping[str, int] | None = None
) -> LabelScheme:
    """Find the roles among labels that have been read; see :func:`read_label_scheme`.

    Args:
        labels: Names and values.
        dataset_json: Where they are from, for messages.
        roles: Role to label value.
    """
    if not isinstance(labels, dict) or not all(isinstance(value, int) for value in labels.values()):
        raise InputError(f"{dataset_json}: found labels {labels!r}, expected one whole number per name (no regions)")
    values = {name: value for name, value in labels.items() if value != 0 and name not in (_BACKGROUND, _IGNORE)}
    if not values:
        raise InputError(f"{dataset_json}: found labels {labels!r}, expected at least one structure to score")
    given = _given_roles(values, roles or {})
    unclaimed = [name for name in values if name not in given.values()]
    named = _named_roles(unclaimed, [role for role in ROLES if role not in given], dataset_json)
    return LabelScheme(values, labels.get(_IGNORE), {**named, **given})


def _named_roles(names: Iterable[str], wanted: Sequence[str], dataset_json: Path | str) -> dict[str, str]:
    """Return role to label name, for the labels whose name is a synonym of a wanted role."""
    roles: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^a-z0-9]", "", name.lower())
        role = next((role for role in wanted if plain in _SYNONYMS[role].split()), None)
        if role is None:
            continue
        if role in roles:
            raise InputError(
                f"{dataset_json}: found the labels {roles[role]!r} and {name!r}, both names of {role}; "
                "expected one; say which with --roles"
            )
        roles[role] = name
    return roles


def _given_roles(values: Mapping[str, int], roles: Mapping[str, int]) -> dict[str, str]:
    """Return role to label name for the roles named by the user."""
    names = {value: name for name, value in values.items()}
    for role, value in roles.items():
        if role not in ROLES or value not in names:
            raise InputError(
                f"--roles: found {role}={value}, expected ROLE=VALUE with a role of {', '.join(ROLES)} and a value of "
                f"{dict(values)}"
            )
    return {role: names[value] for role, value in roles.items()}
