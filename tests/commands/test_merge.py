import numpy as np
import pytest
from nifti_movies import save_movie
from verbs import run_verb

from nnunet_temporal.commands import merge
from nnunet_temporal.datasets.image_io import write_sequence
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.study import split_studies


def run(*words):
    return run_verb(merge, *words)


def test_masks_are_merged_and_counted(tmp_path, capsys):
    manifest = split_studies([save_movie(tmp_path, "a")], tmp_path / "seq")
    (tmp_path / "masks").mkdir()
    for case in manifest:
        write_sequence(np.ones((4, 5, 6), np.uint8), (1.25, 1.5), tmp_path / "masks" / f"{case}.nii.gz")
    assert run("-i", tmp_path / "masks", "-o", tmp_path / "out", "-s", tmp_path / "seq") == 0
    assert (tmp_path / "out" / "a.nii.gz").is_file() and "1 studies" in capsys.readouterr().out


def test_a_missing_folder_of_masks_is_named(tmp_path):
    with pytest.raises(InputError, match="the folder of masks does not exist"):
        run("-i", tmp_path / "nowhere", "-o", tmp_path / "out")
