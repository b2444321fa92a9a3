"""Which models predict new studies: what was chosen on a cross-validation, kept so that it can move with the models."""

import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunetv2.postprocessing import remove_connected_components
from tqdm import tqdm

from nnunet_temporal.atomic import atomic_path, read_json_object, write_json
from nnunet_temporal.errors import InputError
from nnunet_temporal.hashing import hash_file
from nnunet_temporal.training.stock_model import CHECKPOINT

_CHOICE, _POSTPROCESSING = "choice.json", "postprocessing.pkl"
_PATIENCE_S = 2.0
_AGAIN = "Choose again with 'nnunet_temporal find_best_configuration', or copy the folder again."

Postprocessing = tuple[list[Callable[..., Any]], list[dict[str, Any]]]
"""As nnU-Net stores it: functions, and the arguments of each."""


@dataclass(frozen=True)
class Choice:
    """What predicts new studies.

    Attributes:
        models: Names ``TRAINER__PLANS__CONFIGURATION``; two of them are averaged.
        folds: Folds of each.
        dice: Mean Dice of the cross-validation as nnU-Net computes it, before postprocessing.
        dice_postprocessed: The same after it.
        checkpoints: ``{"MODEL/fold_N": SHA-256}`` of what was cross-validated.
    """

    models: list[str]
    folds: list[int]
    dice: float
    dice_postprocessed: float
    checkpoints: dict[str, str]

    @classmethod
    def of_nnunet(cls, information: Mapping[str, Any], results: Path) -> "Choice":
        """Take over what nnU-Net's ``find_best_configuration`` returns of the models in ``results``."""
        best = information["best_model_or_ensemble"]
        names = ("trainer", "plans_identifier", "configuration")
        models = ["__".join(model[name] for name in names) for model in best["selected_model_or_models"]]
        return cls(
            models=models,
            folds=list(information["folds"]),
            dice=float(best["result_on_crossval_pre_pp"]),
            dice_postprocessed=float(best["result_on_crossval_post_pp"]),
            checkpoints=hash_checkpoints(results, models, information["folds"]),
        )

    def check_checkpoints(self, results: Path) -> None:
        """Make sure that the models in ``results``, which must be there, are those that were chosen.

        Raises:
            InputError: One has been trained anew since.
        """
        found = hash_checkpoints(results, self.models, self.folds)
        if changed := [name for name in found if found[name] != self.checkpoints.get(name)]:
            raise InputError(
                f"{results / changed[0] / CHECKPOINT}: is not the one that was cross-validated when {self.models} were "
                f"chosen, so that neither the choice nor its postprocessing is known to fit. {_AGAIN}"
            )

    def write(self, folder: Path, postprocessing: Path) -> None:
        """Write the choice, and a copy of nnU-Net's ``postprocessing.pkl``, into a folder; made when missing."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / _POSTPROCESSING) as temporary:
            shutil.copyfile(postprocessing, temporary)
        write_json(asdict(self), folder / _CHOICE)


def hash_checkpoints(results: Path, models: Sequence[str], folds: Sequence[int]) -> dict[str, str]:
    """Return the SHA-256 of the checkpoint of every fold of every model, by ``MODEL/fold_N``."""
    names = [f"{model}/fold_{fold}" for model in models for fold in folds]
    return {
        name: hash_file(results / name / CHECKPOINT)
        for name in tqdm(names, desc="Checking checkpoints", unit="file", delay=_PATIENCE_S)
    }


_KEEP_LARGEST = remove_connected_components.remove_all_but_largest_component_from_segmentation
_STORED_BY_NNUNET = {
    (_KEEP_LARGEST.__module__, _KEEP_LARGEST.__name__),
    # Labels are numpy's numbers; its module was called otherwise before version 2.
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "scalar"),
}


class _Unpickler(pickle.Unpickler):
    """Reads nnU-Net's postprocessing and nothing else, since a pickle may have any code run."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as it is declared there
        """Return the one function that nnU-Net stores, or what the numbers of its labels are made of."""
        if (module, name) not in _STORED_BY_NNUNET:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no postprocessing of nnU-Net")
        return super().find_class(module, name)


def read_choice(folder: Path) -> tuple[Choice, Postprocessing]:
    """Read what :meth:`Choice.write` wrote.

    Returns:
        The choice, and the postprocessing that belongs to it.

    Raises:
        InputError: There is none, or it is damaged.
    """
    for name in (_CHOICE, _POSTPROCESSING):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder / name}: is missing; 'nnunet_temporal find_best_configuration' writes it. For models that "
                f"were chosen elsewhere, copy the folder '{folder.name}' that lies beside them"
            )
    try:
        choice = Choice(**read_json_object(folder / _CHOICE, _AGAIN))
    except TypeError as error:
        raise InputError(f"{folder / _CHOICE}: is no choice of models ({error}). {_AGAIN}") from error
    return choice, _read_postprocessing(folder / _POSTPROCESSING)


def _read_postprocessing(file: Path) -> Postprocessing:
    try:
        with file.open("rb") as content:
            functions, options = _Unpickler(content).load()
    # A damaged pickle raises whatever its bytes happen to mean.
    except Exception as error:
        raise InputError(f"{file}: cannot be read as a postprocessing of nnU-Net: {error!r}. {_AGAIN}") from error
    return functions, options
