"""From raw 4D files to merged 4D masks through the real commands, on three embedded studies cut down to two slices."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
from command_workspace import FEW_PROCESSES, ON_CPU, Workspace

from nnunet_temporal.demo_data import demo_data_folder

pytestmark = pytest.mark.slow

HELD_OUT, TRAINING = "SC-HF-I-1", ("SC-HF-I-2", "SC-HF-I-4")
# Two slices per study in which an expert has drawn the ventricle at ED and ES, and the middle of the picture.
FIRST_SLICE, MARGIN = 5, 16
DATASET, TRAINER, PLANS = "902", "nnUNetTrainerGDKVM_10iterations", "nnUNetTemporalLightPlans"
MODEL = ("-c", "2dt", "-tr", TRAINER, "-p", PLANS)


def cut_down(study: str, folder: Path) -> None:
    """Write the middle of two slices of an embedded study, all phases, with its header."""
    crop = (slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN), slice(FIRST_SLICE, FIRST_SLICE + 2))
    for kind in ("cine", "gt_lv"):
        image = nibabel.load(demo_data_folder() / f"{study}_{kind}.nii.gz")
        affine = image.affine.copy()
        affine[:3, 3] = (image.affine @ (MARGIN, MARGIN, FIRST_SLICE, 1))[:3]
        small = nibabel.Nifti1Image(np.asanyarray(image.dataobj)[crop], affine, image.header)
        nibabel.save(small, folder / f"{study}_{kind}.nii.gz")
    shutil.copy(demo_data_folder() / f"{study}.json", folder)


@dataclass(frozen=True)
class Pipeline:
    """Where the pipeline has written what."""

    data: Path
    preprocessed: Path
    model: Path
    masks: Path
    merged: Path


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Pipeline:
    """Convert, plan, preprocess and train both folds; split and predict the held-out study; merge."""
    work = Workspace(tmp_path_factory.mktemp("pipeline"), f"Dataset{DATASET}_Sunnybrook", nnUNet_n_proc_DA="2")
    data, sequences, masks, merged = (work.root / name for name in ("data", "sequences", "masks", "merged"))
    data.mkdir()
    for study in (HELD_OUT, *TRAINING):
        cut_down(study, data)
    work.run("nnunet_temporal", "convert", "sunnybrook", "-i", data, "-d", DATASET, "--held-out", HELD_OUT)
    work.run(
        "nnunet_temporal", "plan_and_preprocess", "-d", DATASET, "-pl", "LightTemporalPlanner", "-npfp", 1, "-np", 1
    )
    for fold in (0, 1):
        work.run("nnUNetv2_train", DATASET, "2dt", fold, "-tr", TRAINER, "-p", PLANS, *ON_CPU)
    # Under the study's own name, so that its sequences are called as in labelsTs.
    new_study = shutil.copy(data / f"{HELD_OUT}_cine.nii.gz", work.root / f"{HELD_OUT}.nii.gz")
    work.run("nnunet_temporal", "split", "-i", new_study, "-o", sequences)
    work.run("nnUNetv2_predict", "-i", sequences, "-o", masks, "-d", DATASET, *MODEL, "-f", 0, 1, *FEW_PROCESSES)
    work.run("nnunet_temporal", "merge", "-i", masks, "-o", merged)
    return Pipeline(data, work.preprocessed, work.results / f"{TRAINER}__{PLANS}__2dt", masks, merged)


def test_the_folds_keep_studies_apart_and_the_held_out_study_out(pipeline):
    splits = json.loads((pipeline.preprocessed / "splits_final.json").read_text())
    assert [{case.rpartition("_z")[0] for case in split["val"]} for split in splits] in (
        [{TRAINING[0]}, {TRAINING[1]}],
        [{TRAINING[1]}, {TRAINING[0]}],
    )
    assert HELD_OUT not in json.dumps(splits)


def test_every_fold_leaves_a_final_checkpoint_and_a_validated_summary(pipeline):
    for fold in (0, 1):
        folder = pipeline.model / f"fold_{fold}"
        assert (folder / "checkpoint_final.pth").is_file()
        dice = json.loads((folder / "validation" / "summary.json").read_text())["foreground_mean"]["Dice"]
        assert 0 <= dice <= 1


def test_the_merged_masks_lie_on_the_grid_and_header_of_the_original(pipeline):
    (path,) = pipeline.merged.glob("*.nii.gz")
    assert path.name.startswith(HELD_OUT)
    merged, original = nibabel.load(path), nibabel.load(pipeline.data / f"{HELD_OUT}_cine.nii.gz")
    assert merged.shape == original.shape == (64, 64, 2, 20)
    np.testing.assert_array_equal(merged.affine, original.affine)
    assert merged.header.get_zooms() == original.header.get_zooms()
    assert merged.header.get_xyzt_units() == original.header.get_xyzt_units()
    assert set(np.unique(np.asanyarray(merged.dataobj))) <= {0, 1}


def test_the_merged_masks_hold_the_predicted_slices_in_order(pipeline):
    (path,) = pipeline.merged.glob("*.nii.gz")
    merged = np.asanyarray(nibabel.load(path).dataobj)
    for z, mask in enumerate(sorted(pipeline.masks.glob("*.nii.gz"))):
        np.testing.assert_array_equal(merged[:, :, z], np.asanyarray(nibabel.load(mask).dataobj))
