"""What masks were predicted by: a small file beside them, for whoever finds them later."""

from pathlib import Path
from typing import Any

from nnunet_temporal import __version__
from nnunet_temporal.atomic import read_json_object, write_json

RECORD_NAME = "predicted_by.json"


def record_of(**facts: object) -> dict[str, Any]:
    """Return what is recorded: the version of this package and ``facts``, plain values by their names."""
    return {"nnunet_temporal": __version__, **facts}


def write_record(folder: Path, **facts: object) -> None:
    """Write which model predicted the masks in a folder, and how; see ``record_of``."""
    write_json(record_of(**facts), folder / RECORD_NAME)


def read_record(folder: Path) -> dict[str, Any]:
    """Read what :func:`write_record` wrote; empty where nothing did, as after ``nnUNetv2_predict``.

    Raises:
        InputError: The file cannot be read.
    """
    path = folder / RECORD_NAME
    return (
        read_json_object(path, "'nnunet_temporal predict' writes it; remove it if it is damaged.")
        if path.is_file()
        else {}
    )
