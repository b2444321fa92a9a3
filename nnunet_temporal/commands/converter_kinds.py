"""What a sub-command of ``nnunet_temporal convert`` is: a dataset as downloaded, or a folder of one's own movies."""

import inspect
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from nnunet_temporal.datasets import nifti
from nnunet_temporal.datasets.label_presets import PRESETS, with_preset
from nnunet_temporal.datasets.study_source import IGNORE, StudySource

Folds = list[tuple[set[str], set[str]]]
Options = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Found:
    """What a converter found in a folder, not read yet: its studies, label names and values, and channel."""

    sources: list[StudySource]
    labels: dict[str, int]
    channel: str


@dataclass(frozen=True)
class Converter:
    """A dataset as it is downloaded.

    Attributes:
        module: A module of ``nnunet_temporal.datasets`` with ``NAME``, ``CHANNEL``, ``LABELS`` and
            ``find_studies(folder)``; optionally ``held_out_studies(folder)``, the names of the official test studies,
            and ``official_folds(folder)``, the studies of each official fold for training and for validation.
        text: What the dataset is and what -i names.
        held_out: What is held out by default, in words.
        options: {flag: arguments of ``add_argument``}; each reaches the functions of the module that name it.
        labels: Returns label names and values by the options, where ``LABELS`` are not all.
        has_presets: Whether ``--labels`` offers the label values of other datasets.
    """

    module: ModuleType
    text: str
    held_out: str = "none"
    options: Options = field(default_factory=dict)
    labels: Callable[[Namespace], dict[str, int]] | None = None
    has_presets: bool = False

    @property
    def has_official_folds(self) -> bool:
        """Whether the dataset may come with folds of its own."""
        return hasattr(self.module, "official_folds")

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options that only this converter has."""
        for flag, settings in self.options.items():
            parser.add_argument(flag, **settings)
        if self.has_presets:
            text = "take the label values of another dataset, so that both can be pooled"
            parser.add_argument("--labels", choices=sorted(PRESETS), help=text)

    def find(self, arguments: Namespace) -> Found:
        """Find the studies in ``arguments.input``.

        Raises:
            InputError: See ``find_studies`` of the module.
        """
        labels = self.labels(arguments) if self.labels else self.module.LABELS
        sources = self._call("find_studies", arguments)
        if self.has_presets and arguments.labels:
            sources, labels = with_preset(sources, labels, arguments.labels)
        return Found(sources, labels, self.module.CHANNEL)

    def held_out_studies(self, arguments: Namespace) -> list[str]:
        """Return the official test studies; none where there are none."""
        return self._call("held_out_studies", arguments) if hasattr(self.module, "held_out_studies") else []

    def official_folds(self, arguments: Namespace) -> Folds:
        """Return the official folds; none where there are none."""
        return self._call("official_folds", arguments) if self.has_official_folds else []

    def _call(self, function: str, arguments: Namespace) -> Any:  # noqa: ANN401 - what the function returns
        action: Callable[..., Any] = getattr(self.module, function)
        given = {flag.removeprefix("--").replace("-", "_") for flag in self.options}
        known = given & set(inspect.signature(action).parameters)
        return action(arguments.input, **{name: getattr(arguments, name) for name in sorted(known)})


@dataclass(frozen=True)
class FolderConverter(Converter):
    """Any folder of movies, for which options say what is known of a dataset.

    Attributes:
        read: Returns the studies by the options and the value that means "not labelled".
    """

    read: Callable[[Namespace, int], list[StudySource]] = field(kw_only=True)

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options of this kind, then those that only this converter has."""
        parser.add_argument(
            "--classes",
            nargs="+",
            metavar="NAME",
            help="names of label values 1, 2, ...; one value more means 'not labelled' (default: labels in "
            "dataset.json)",
        )
        text = "channel name, by which nnU-Net chooses normalisation (default: %(default)s)"
        parser.add_argument("--channel", default=self.module.CHANNEL, help=text)
        parser.add_argument(
            "--empty-frames",
            choices=["background", "unlabelled"],
            help="what a frame means whose labels are zero everywhere; such frames are refused without this",
        )
        super().add_arguments(parser)

    def find(self, arguments: Namespace) -> Found:
        """Find the studies in ``arguments.input``.

        Raises:
            InputError: See ``find_studies`` of the module; or the classes have no names.
        """
        labels = nifti.read_label_names(arguments.input, arguments.classes)
        return Found(self.read(arguments, labels[IGNORE]), labels, arguments.channel)
