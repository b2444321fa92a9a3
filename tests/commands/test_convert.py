import json
import warnings

import nibabel
import numpy as np
import pytest
from acdc_layout import mask_of, save_database
from camus_files import save_camus, save_camus_mhd, save_split
from mnms_layout import save_mnm2, save_open_dataset
from nifti_movies import save_movie, save_nifti
from verbs import run_verb

from nnunet_temporal.commands import convert
from nnunet_temporal.commands.converters import CONVERTERS
from nnunet_temporal.datasets import mnms, nifti, raw_writer
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Manifest


def run(*words):
    return run_verb(convert, *words)


@pytest.fixture
def movies(tmp_path):
    folder = tmp_path / "in"
    for name in ("a", "b", "c"):
        save_movie(folder, name)
    return folder


def test_nifti_movies_become_a_raw_dataset_and_a_summary(movies, nnunet_folders, capsys):
    assert run("nifti", "-i", movies, "-d", 5, "--name", "Hearts", "--classes", "LV", "--held-out", "c") == 0
    folder = nnunet_folders.raw / "Dataset005_Hearts"
    assert len(Manifest.load(folder)) == 6 and len(list((folder / "imagesTs").iterdir())) == 2
    printed = capsys.readouterr().out
    for text in ("3, held out: c", "24, labelled: 12", "-f 0 1", "nnunet_temporal plan_and_preprocess -d 5"):
        assert text in printed


def test_the_options_of_nifti_reach_the_dataset(tmp_path, nnunet_folders):
    for name in ("a", "b"):
        save_nifti(tmp_path / "in" / name / f"{name}.nii.gz", np.zeros((6, 5, 4), np.int16))
        labels = np.zeros((6, 5, 4), np.uint8)
        labels[2, 2, 1] = 1
        save_nifti(tmp_path / "in" / f"{name}_gt.nii.gz", labels)
    run("nifti", "-i", tmp_path / "in", "-d", 5, "--images", "*/*.nii.gz", "--labels", "{name}_gt.nii.gz", "--classes",
        "LV", "--channel", "US", "--cyclic", "--empty-frames", "unlabelled", "--view", "4CH")  # fmt: skip
    folder = nnunet_folders.raw / "Dataset005_Cine"
    sequence = Manifest.load(folder)["a_4CH"]
    assert sequence.cyclic and sequence.labelled_frames == (1,)
    assert (sequence.study, sequence.view) == ("a", "4CH")
    assert json.loads((folder / "dataset.json").read_text())["channel_names"] == {"0": "US"}


@pytest.mark.parametrize("view", ["a/b", " ", "", "4_CH"])
def test_a_view_that_is_no_part_of_a_name_is_refused(movies, nnunet_folders, capsys, view):
    with pytest.raises(SystemExit, match="2"):
        run("nifti", "-i", movies, "-d", 5, "--view", view)
    assert f"--view: found {view!r}, expected letters, digits and hyphens" in capsys.readouterr().err


def test_sunnybrook_keeps_slices_without_labels(tmp_path, nnunet_folders):
    for name in ("SC-1", "SC-2"):
        labels = np.full((6, 5, 2, 4), 2, np.uint8)
        labels[:, :, 0, [1, 3]] = 1
        save_nifti(tmp_path / f"{name}_cine.nii.gz", np.zeros(labels.shape, np.int16))
        save_nifti(tmp_path / f"{name}_gt_lv.nii.gz", labels)
        (tmp_path / f"{name}.json").write_text('{"dt_s": 0.04, "ed_t": [3], "es_t": [1]}')
    assert run("sunnybrook", "-i", tmp_path, "-d", 1) == 0
    manifest = Manifest.load(nnunet_folders.raw / "Dataset001_Sunnybrook")
    assert manifest["SC-1_z00"].labelled_frames == (1, 3) and manifest["SC-1_z01"].labelled_frames == ()
    assert (manifest["SC-1_z01"].ed, manifest["SC-1_z01"].es, manifest["SC-1_z01"].cyclic) == (3, 1, True)


def held_out_of(manifest, folder):
    cases = {path.name.removesuffix("_0000.nii.gz") for path in folder.glob("imagesTs/*")}
    return {manifest[case].study for case in cases}


def test_acdc_holds_its_patients_for_testing_out(tmp_path, nnunet_folders, capsys):
    assert run("acdc", "-i", save_database(tmp_path), "-d", 27) == 0
    folder = nnunet_folders.raw / "Dataset027_ACDC"
    manifest = Manifest.load(folder)
    assert held_out_of(manifest, folder) == {"patient101"} and len(manifest) == 6
    assert manifest["patient002_z01"].labelled_frames == (1, 3) and manifest["patient002_z01"].ed == 3
    labels = np.asanyarray(nibabel.load(folder / "labelsTs" / "patient101_z01.nii.gz").dataobj)
    assert np.array_equal(labels[..., 2], mask_of(3)[..., 1]) and np.all(labels[..., [1, 3, 4]] == 4)
    assert "3, held out: patient101\n" in capsys.readouterr().out


def test_acdc_has_its_labels_and_channel(tmp_path, nnunet_folders):
    run("acdc", "-i", save_database(tmp_path), "-d", 27, "--name", "Hearts")
    content = json.loads((nnunet_folders.raw / "Dataset027_Hearts" / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "RV": 1, "MYO": 2, "LV": 3, "ignore": 4}
    assert content["channel_names"] == {"0": "cineMRI"} and content["numTraining"] == 4


@pytest.mark.parametrize("held_out", [["patient001"], []])
def test_other_patients_of_acdc_or_none_can_be_held_out(tmp_path, nnunet_folders, held_out):
    run("acdc", "-i", save_database(tmp_path), "-d", 27, "--held-out", *held_out)
    folder = nnunet_folders.raw / "Dataset027_ACDC"
    assert held_out_of(Manifest.load(folder), folder) == set(held_out)


def test_patients_of_acdc_without_masks_are_held_out_without_label_files(tmp_path, nnunet_folders, capsys):
    run("acdc", "-i", save_database(tmp_path, masked_testing=False), "-d", 27)
    folder = nnunet_folders.raw / "Dataset027_ACDC"
    assert len(list((folder / "imagesTs").iterdir())) == 2 and not (folder / "labelsTs").exists()
    assert "without labels   patient101" in capsys.readouterr().out


def test_a_long_list_of_studies_is_cut_with_the_number_left(tmp_path, nnunet_folders, capsys):
    for number in range(14):
        save_movie(tmp_path, f"a{number:02d}")
    names = [f"a{number:02d}" for number in range(12)]
    run("nifti", "-i", tmp_path, "-d", 5, "--classes", "LV", "--held-out", *names)
    assert "14, held out: " + ", ".join(names[:10]) + " and 2 more\n" in capsys.readouterr().out


def test_label_values_outside_the_classes_are_refused(movies, nnunet_folders):
    save_nifti(movies / "labels" / "b.nii.gz", np.full((6, 5, 2, 4), 7, np.uint8))
    with pytest.raises(InputError, match=r"'b'.*found label values \[7\]"):
        run("nifti", "-i", movies, "-d", 5, "--classes", "LV")
    assert not any(nnunet_folders.raw.iterdir())


def test_a_dataset_without_any_label_is_refused(movies, nnunet_folders):
    with pytest.raises(InputError, match="no labelled frame in the whole dataset"):
        run("nifti", "-i", movies, "-d", 5, "--classes", "LV", "--labels", "nowhere/{name}.nii.gz")


def test_studies_without_labels_are_named_in_the_summary(movies, nnunet_folders, capsys):
    save_movie(movies, "d", labelled=False)
    run("nifti", "-i", movies, "-d", 5, "--classes", "LV")
    assert "without labels   d" in capsys.readouterr().out


def test_an_id_used_in_the_results_folder_is_refused(movies, nnunet_folders):
    (nnunet_folders.results / "Dataset005_Other").mkdir()
    with pytest.raises(InputError, match="already used by"):
        run("nifti", "-i", movies, "-d", 5, "--classes", "LV")


def test_an_existing_dataset_is_replaced_only_with_overwrite(movies, nnunet_folders):
    words = ("nifti", "-i", movies, "-d", 5, "--classes", "LV")
    run(*words)
    with pytest.raises(InputError, match="--overwrite"):
        run(*words)
    assert run(*words, "--overwrite") == 0


def test_an_existing_dataset_is_noticed_before_anything_is_looked_for(tmp_path, nnunet_folders):
    (tmp_path / "empty").mkdir()
    (nnunet_folders.raw / "Dataset005_Cine").mkdir()
    with pytest.raises(InputError, match="the dataset exists already"):
        run("nifti", "-i", tmp_path / "empty", "-d", 5, "--classes", "LV")


def test_an_unset_nnunet_raw_is_explained(movies, monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(InputError, match=r"nnUNet_raw is not set.*export nnUNet_raw="):
        run("nifti", "-i", movies, "-d", 5, "--classes", "LV")


def test_a_raw_folder_that_does_not_exist_is_explained(movies, monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "gone"))
    with pytest.raises(InputError, match="mkdir -p"):
        run("nifti", "-i", movies, "-d", 5, "--classes", "LV")


def test_a_missing_input_folder_is_named(tmp_path, nnunet_folders):
    with pytest.raises(InputError, match="the input folder does not exist"):
        run("sunnybrook", "-i", tmp_path / "nowhere", "-d", 1)


@pytest.fixture
def camus(tmp_path):
    for number in range(1, 5):
        save_camus(tmp_path / "CAMUS_public", f"patient{number:04d}")
    save_split(tmp_path / "CAMUS_public", ["patient0001", "patient0002"], ["patient0003"], ["patient0004"])
    return tmp_path / "CAMUS_public"


def splits_of(folder):
    return json.loads((folder / "splits_final.json").read_text())


def test_official_folds_and_test_patients_are_taken_where_there_are_some(camus, nnunet_folders, capsys):
    assert run("camus", "-i", camus, "-d", 3, "--workers", 2) == 0
    folder = nnunet_folders.raw / "Dataset003_CAMUS"
    (fold,) = splits_of(folder)
    assert fold["val"] == ["patient0003_2CH", "patient0003_4CH"] and len(fold["train"]) == 4
    assert held_out_of(Manifest.load(folder), folder) == {"patient0004"}
    printed = capsys.readouterr().out
    assert "4, held out: patient0004\n" in printed and "1, official; pass -f 0 " in printed


def test_folds_by_study_can_be_asked_for_instead(camus, nnunet_folders, capsys):
    assert run("camus", "-i", camus, "-d", 3, "--folds", "study", "--held-out") == 0
    assert len(splits_of(nnunet_folders.raw / "Dataset003_CAMUS")) == 4
    assert "4, by study; pass -f 0 1 2 3 " in capsys.readouterr().out


def test_official_folds_need_the_official_test_patients_held_out(camus, nnunet_folders):
    with pytest.raises(InputError, match=r"neither for training nor .*patient0004; hold them out .*--folds study"):
        run("camus", "-i", camus, "-d", 3, "--held-out")


def test_official_folds_that_a_copy_does_not_have_are_refused_only_when_asked_for(tmp_path, nnunet_folders, capsys):
    for name in ("patient0001", "patient0002"):
        save_camus_mhd(tmp_path / "training" / name)
    with pytest.raises(InputError, match="--folds official: found no official folds in"):
        run("camus_mhd", "-i", tmp_path, "-d", 3, "--folds", "official")
    assert run("camus_mhd", "-i", tmp_path, "-d", 3) == 0
    assert "2, by study" in capsys.readouterr().out


def test_a_dataset_without_official_folds_offers_no_choice_of_folds(tmp_path, nnunet_folders, capsys):
    with pytest.raises(SystemExit):
        run("ted", "-i", tmp_path, "-d", 3, "--folds", "study")
    assert "--folds" in capsys.readouterr().err


def test_what_a_converter_warns_of_is_in_the_summary_once(movies, nnunet_folders, capsys, monkeypatch):
    def find_studies(folder, layout, ignore):
        warnings.warn("a.nii.gz: frame 7 is left out", stacklevel=2)
        warnings.warn("a.nii.gz: frame 7 is left out", stacklevel=2)
        return original(folder, layout, ignore)

    original = nifti.find_studies
    monkeypatch.setattr(nifti, "find_studies", find_studies)
    run("nifti", "-i", movies, "-d", 5, "--classes", "LV")
    assert capsys.readouterr().out.count("    - a.nii.gz: frame 7 is left out\n") == 1


def interrupt(*arguments):
    """Stop as Ctrl-C does, which a process without a terminal may ignore."""
    raise KeyboardInterrupt


def test_a_stopped_conversion_is_taken_up_and_said_so(movies, nnunet_folders, capsys, monkeypatch):
    words = ("nifti", "-i", movies, "-d", 5, "--classes", "LV", "--workers", "1")
    with monkeypatch.context() as patch:
        patch.setattr(raw_writer, "_gather", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(*words)
    assert run(*words) == 0
    assert "3 movies that a stopped conversion had finished" in capsys.readouterr().out


@pytest.mark.parametrize("dataset", CONVERTERS)
def test_every_converter_offers_what_the_command_needs(dataset, capsys):
    with pytest.raises(SystemExit, match="0"):
        run(dataset, "--help")
    assert "--workers" in capsys.readouterr().out


def test_no_worker_is_refused(movies, nnunet_folders):
    with pytest.raises(InputError, match="--workers: found 0"):
        run("nifti", "-i", movies, "-d", 5, "--classes", "LV", "--workers", "0")


def test_acdc_can_have_the_label_values_of_mnms(tmp_path, nnunet_folders):
    run("acdc", "-i", save_database(tmp_path), "-d", 27, "--labels", "mnms")
    folder = nnunet_folders.raw / "Dataset027_ACDC"
    assert json.loads((folder / "dataset.json").read_text())["labels"] == mnms.LABELS
    labels = np.asanyarray(nibabel.load(folder / "labelsTs" / "patient101_z01.nii.gz").dataobj)[..., 2]
    assert np.array_equal(labels, np.array([0, 3, 2, 1])[mask_of(3)[..., 1]])


def test_mnms_can_have_the_label_values_of_acdc_and_its_official_fold(tmp_path, nnunet_folders, capsys):
    run("mnms", "-i", save_open_dataset(tmp_path), "-d", 28, "--labels", "acdc")
    folder = nnunet_folders.raw / "Dataset028_MNMs"
    assert json.loads((folder / "dataset.json").read_text())["labels"]["RV"] == 1
    assert "1, official" in capsys.readouterr().out


def test_a_view_that_is_asked_for_is_the_only_one(tmp_path, nnunet_folders):
    run("mnms2", "-i", save_mnm2(tmp_path), "-d", 29, "--views", "LA")
    manifest = Manifest.load(nnunet_folders.raw / "Dataset029_MNMs2")
    assert {sequence.view for sequence in manifest.values()} == {"LA"}


def test_the_official_fold_of_one_view_leaves_patients_out_who_only_have_the_other(tmp_path, nnunet_folders):
    folder = save_mnm2(tmp_path, ("001", "002", "161", "201"))
    for path in (folder / "dataset" / "002").glob("*_SA_*"):
        path.unlink()
    assert run("mnms2", "-i", folder, "-d", 29, "--views", "SA") == 0
    assert {case[:3] for case in splits_of(nnunet_folders.raw / "Dataset029_MNMs2")[0]["train"]} == {"001"}


def test_a_view_of_cardiacuda_has_its_own_labels(tmp_path, nnunet_folders):
    for patient in (1, 2):
        for name, value in (("image", 9), ("label", 1)):
            path = tmp_path / "Site_G_20" / f"{patient}-2_{name}.nii.gz"
            save_nifti(path, np.full((20, 16, 3), value, np.uint8))
    run("cardiacuda", "-i", tmp_path, "-d", 30, "--view", "PALA")
    labels = json.loads((nnunet_folders.raw / "Dataset030_CardiacUDA" / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "PA": 1, "ignore": 2}
