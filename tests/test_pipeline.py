"""The page of the first training, command by command: three embedded studies, cut down to two slices, become masks."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
from command_workspace import Workspace
from documentation_pages import blocks_of, read_page

pytestmark = pytest.mark.slow

HELD_OUT, TRAINING = "SC-HF-I-1", ("SC-HF-I-2", "SC-HF-I-4")
# Two slices per study in which an expert has drawn the ventricle at ED and ES, and the middle of the picture.
FIRST_SLICE, MARGIN = 5, 16
DATASET, MODEL = "Dataset042_Hearts", "nnUNetTrainerGDKVM_10iterations__nnUNetTemporalLightPlans__2dt"


def cut_down(path: Path) -> None:
    """Replace a movie by the middle of two of its slices, all phases, with its header."""
    crop = (slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN), slice(FIRST_SLICE, FIRST_SLICE + 2))
    image = nibabel.load(path)
    pixels, affine = np.asanyarray(image.dataobj)[crop], image.affine.copy()
    affine[:3, 3] = (image.affine @ (MARGIN, MARGIN, FIRST_SLICE, 1))[:3]
    nibabel.save(nibabel.Nifti1Image(pixels, affine, image.header), path)


@dataclass(frozen=True)
class Pipeline:
    """Where the commands of the page have written what, and what they printed."""

    root: Path
    printed: str

    @property
    def preprocessed(self) -> Path:
        """Folder of the dataset after preprocessing."""
        return self.root / "nnUNet_preprocessed" / DATASET

    @property
    def model(self) -> Path:
        """Folder of the trained model."""
        return self.root / "nnUNet_results" / DATASET / MODEL


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Pipeline:
    """Run the blocks of the page in one shell, the studies cut down after the block that copies them."""
    work = Workspace(tmp_path_factory.mktemp("pipeline") / "unused", DATASET, nnUNet_n_proc_DA="2")
    root = work.root.parent
    environment = {**work.environment, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}

    def run(blocks: list[str]) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
            cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-5000:]
        return done.stdout

    setting_up, copying, *others = [block.text for block in blocks_of(read_page("getting_started/first_training.md"))]
    run([copying])
    for path in root.glob("movies/*/*.nii.gz"):
        cut_down(path)
    return Pipeline(root, run([setting_up, *others]))


def test_the_folds_keep_studies_apart_and_the_held_out_study_out(pipeline):
    splits = json.loads((pipeline.preprocessed / "splits_final.json").read_text())
    assert [{case.rpartition("_z")[0] for case in split["val"]} for split in splits] in (
        [{TRAINING[0]}, {TRAINING[1]}],
        [{TRAINING[1]}, {TRAINING[0]}],
    )
    assert HELD_OUT not in json.dumps(splits)


def test_training_leaves_a_final_checkpoint_and_a_validated_summary(pipeline):
    folder = pipeline.model / "fold_0"
    assert (folder / "checkpoint_final.pth").is_file()
    assert (folder / "validation_sheet.png").is_file()
    dice = json.loads((folder / "validation" / "summary.json").read_text())["foreground_mean"]["Dice"]
    assert 0 <= dice <= 1


@pytest.mark.parametrize("folder", ["masks", "merged"])
def test_the_masks_lie_on_the_grid_and_header_of_the_original(pipeline, folder):
    (path,) = (pipeline.root / folder).glob("*.nii.gz")
    assert path.name == f"{HELD_OUT}.nii.gz"
    merged, original = nibabel.load(path), nibabel.load(pipeline.root / "movies" / "images" / path.name)
    assert merged.shape == original.shape == (64, 64, 2, 20)
    np.testing.assert_array_equal(merged.affine, original.affine)
    assert merged.header.get_zooms() == original.header.get_zooms()
    assert merged.header.get_xyzt_units() == original.header.get_xyzt_units()
    assert set(np.unique(np.asanyarray(merged.dataobj))) <= {0, 1}


def test_the_merged_masks_hold_the_predicted_slices_in_order(pipeline):
    merged = np.asanyarray(nibabel.load(pipeline.root / "merged" / f"{HELD_OUT}.nii.gz").dataobj)
    for z, mask in enumerate(sorted((pipeline.root / "sequence_masks").glob("*.nii.gz"))):
        np.testing.assert_array_equal(merged[:, :, z], np.asanyarray(nibabel.load(mask).dataobj))


def test_the_held_out_study_is_evaluated(pipeline):
    summary = json.loads((pipeline.root / "scores" / "summary.json").read_text())
    assert (summary["studies"], summary["cases"], summary["roles"]) == (1, 2, {"LV": "LV"})
    assert summary["volume_methods"] == {"slice_summation": 1}
    assert all((pipeline.root / "scores" / f"{table}.csv").is_file() for table in ("frames", "sequences", "studies"))
