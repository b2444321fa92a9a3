import numpy as np
import pytest
from nifti_movies import save_movie, save_nifti
from verbs import run_verb

from nnunet_temporal.commands import split
from nnunet_temporal.datasets import nifti, sunnybrook
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Manifest


def run(*words):
    return run_verb(split, *words)


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


def test_studies_are_named_as_convert_nifti_names_them(tmp_path):
    for name in ("a_cine", "b"):
        save_movie(tmp_path, name)
    run("-i", tmp_path / "images", "-o", tmp_path / "seq")
    converted = [study.study for study in nifti.find_studies(tmp_path, nifti.NiftiLayout(), 2)]
    assert [study.name for study in Manifest.load(tmp_path / "seq").studies()] == converted == ["a_cine", "b"]


def test_a_study_can_be_named_as_a_converter_names_it(tmp_path):
    movies = tmp_path / "in"
    save_nifti(movies / "SC-1_cine.nii.gz", np.zeros((6, 5, 2, 4), np.int16))
    (movies / "SC-1.json").write_text('{"dt_s": 0.04, "ed_t": [3], "es_t": [1]}')
    run("-i", movies, "-o", tmp_path / "seq", "--drop-suffix", "_cine")
    manifest = Manifest.load(tmp_path / "seq")
    assert {sequence.study for sequence in manifest.values()} == {sunnybrook.find_studies(movies)[0].study}
    assert {f"{case}_0000.nii.gz" for case in manifest} == {path.name for path in (tmp_path / "seq").glob("*.nii.gz")}
    assert list(manifest) == ["SC-1_z00", "SC-1_z01"] and manifest["SC-1_z00"].source.endswith("SC-1_cine.nii.gz")


@pytest.mark.parametrize("name", ["b", "_cine"])
def test_a_file_without_the_suffix_is_named_and_nothing_is_written(tmp_path, name):
    save_movie(tmp_path, "a_cine")
    save_movie(tmp_path, name)
    with pytest.raises(InputError, match=rf"/{name}\.nii\.gz: found name '{name}', expected STUDY_cine"):
        run("-i", tmp_path / "images", "-o", tmp_path / "seq", "--drop-suffix", "_cine")
    assert not (tmp_path / "seq").exists()


def test_files_that_differ_only_in_their_ending_cannot_share_a_study(tmp_path):
    for name in ("a_cine.nii.gz", "a_cine.nii"):
        save_nifti(tmp_path / "in" / name, np.zeros((6, 5, 4), np.int16))
    with pytest.raises(InputError, match="both lead to case 'a'"):
        run("-i", tmp_path / "in", "-o", tmp_path / "seq", "--drop-suffix", "_cine")
