import argparse

import pytest
from nifti_movies import save_movie

from nnunet_temporal.commands import split
from nnunet_temporal.errors import InputError


def run(*words):
    parser = argparse.ArgumentParser()
    split.add_arguments(parser)
    return split.run(parser.parse_args([str(word) for word in words]))


def test_a_file_is_split_and_the_next_commands_are_printed(tmp_path, capsys):
    image = save_movie(tmp_path, "a")
    assert run("-i", image, "-o", tmp_path / "seq") == 0
    printed = capsys.readouterr().out
    assert "1 studies, 2 sequences" in printed and "nnUNetv2_predict -i" in printed and "merge" in printed


def test_a_folder_is_split(tmp_path):
    for name in "ab":
        save_movie(tmp_path, name)
    run("-i", tmp_path / "images", "-o", tmp_path / "seq")
    assert len(list((tmp_path / "seq").glob("*_0000.nii.gz"))) == 4


def test_a_missing_input_is_named(tmp_path):
    with pytest.raises(InputError, match="the input does not exist"):
        run("-i", tmp_path / "nowhere", "-o", tmp_path / "seq")
