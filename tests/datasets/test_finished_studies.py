import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from nifti_movies import save_nifti

from nnunet_temporal.datasets.finished_studies import fingerprint, is_finished, move_study, write_study
from nnunet_temporal.datasets.image_io import Spacing, read_image, read_labels
from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset
from nnunet_temporal.datasets.study_source import StudySource, inspect_source
from nnunet_temporal.sequences import Manifest

LABELS = {"background": 0, "LV": 1, "ignore": 2}
INFO = DatasetInfo(7, "Hearts", {"background": 0, "LV": 1}, "cineMRI")
PARTIAL = ".partial_Dataset007_Hearts"
STOPS = (KeyboardInterrupt, OSError)


def source_of(folder, name="a"):
    image = folder / f"{name}_image.nii.gz"
    labels = folder / f"{name}_labels.nii.gz"
    return StudySource(name, partial(read_image, image), partial(read_labels, labels), source=str(image))


@pytest.fixture
def movies(tmp_path):
    folder = tmp_path / "movies"
    for name in "abc":
        save_nifti(folder / f"{name}_image.nii.gz", np.random.default_rng(0).integers(0, 9, (6, 5, 4)).astype(np.int16))
        save_nifti(folder / f"{name}_labels.nii.gz", np.ones((6, 5, 4), np.uint8))
    return folder


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def logged_load(image, log, stop_at, error):
    """Load a movie and note it in a file; at the load of this number in the log, raise ``error``."""
    # The log is no Path: it changes, and the study would have another fingerprint.
    with open(log, "a") as loads:
        loads.write(image.name[0])
    if len(Path(log).read_text()) == stop_at:
        raise error
    return read_image(image)


def stopped_conversion(movies, raw, error=KeyboardInterrupt, **options):
    """Check a, b and c and stop at writing c; return the sources of a new call, which does not stop."""
    log = str(raw.parent / "loads")
    sources = [source_of(movies, name) for name in "abc"]
    sources = [
        replace(source, load_image=partial(logged_load, Path(source.source), log, 6, error)) for source in sources
    ]
    with pytest.raises(error):
        write_raw_dataset(sources, INFO, raw, workers=1, **options)
    assert loads_of(raw) == "abcabc"
    return sources


def loads_of(raw):
    return (raw.parent / "loads").read_text()


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.json"))} | {
        path.relative_to(folder): read_image(path).tobytes() for path in sorted(folder.rglob("*.nii.gz"))
    }


@pytest.mark.parametrize("error", STOPS)
def test_a_stopped_conversion_shows_no_dataset_and_is_taken_up_again(movies, raw, error):
    sources = stopped_conversion(movies, raw, error)
    assert [path.name for path in raw.iterdir()] == [PARTIAL]
    written = write_raw_dataset(sources, INFO, raw)
    assert loads_of(raw) == "abcabc" + "cc" and written.n_resumed == 2
    assert [path.name for path in raw.iterdir()] == ["Dataset007_Hearts"]


def test_a_dataset_taken_up_again_is_the_one_written_at_once(movies, raw, tmp_path):
    sources = stopped_conversion(movies, raw)
    (tmp_path / "other").mkdir()
    at_once = write_raw_dataset(sources, INFO, tmp_path / "other").folder
    resumed = write_raw_dataset(sources, INFO, raw).folder
    assert files_of(resumed) == files_of(at_once) and len(files_of(resumed)) == 9


def test_a_study_whose_file_has_changed_since_is_converted_again(movies, raw):
    sources = stopped_conversion(movies, raw)
    save_nifti(movies / "a_labels.nii.gz", np.zeros((6, 5, 4), np.uint8))
    os.utime(movies / "a_labels.nii.gz", (1, 1))
    written = write_raw_dataset(sources, INFO, raw, workers=1)
    assert loads_of(raw) == "abcabc" + "acac" and written.n_resumed == 1
    assert not read_labels(written.folder / "labelsTr" / "a.nii.gz").any()


def test_what_was_finished_and_is_not_wanted_any_more_does_not_come_back(movies, raw):
    sources = stopped_conversion(movies, raw)
    written = write_raw_dataset(sources[1:], INFO, raw)
    assert sorted(written.manifest) == ["b", "c"]
    assert [path.name for path in sorted((written.folder / "imagesTr").iterdir())] == [
        "b_0000.nii.gz",
        "c_0000.nii.gz",
    ]


def test_a_finished_study_can_still_be_held_out(movies, raw):
    sources = stopped_conversion(movies, raw)
    written = write_raw_dataset(sources, INFO, raw, held_out=["a"])
    assert written.n_resumed == 2 and (written.folder / "labelsTs" / "a.nii.gz").is_file()
    assert not (written.folder / "imagesTr" / "a_0000.nii.gz").exists()


def test_a_dataset_is_replaced_only_when_the_new_one_is_whole(movies, raw):
    old = write_raw_dataset([source_of(movies, name) for name in "ab"], INFO, raw).folder
    sources = stopped_conversion(movies, raw, overwrite=True)
    assert sorted(Manifest.load(old)) == ["a", "b"]
    write_raw_dataset(sources, INFO, raw, overwrite=True)
    assert sorted(Manifest.load(old)) == ["a", "b", "c"] and len(list(raw.iterdir())) == 1


def test_a_study_of_which_files_were_moved_already_is_not_finished(movies, tmp_path):
    source = source_of(movies)
    folder, dataset = tmp_path / "a", tmp_path / "dataset"
    manifest = Manifest({sequence.case: sequence for sequence in inspect_source(source, LABELS)})
    write_study(source, manifest, 2, folder)
    assert is_finished(folder)
    with pytest.raises(OSError):
        move_study(folder, dataset, "Tr", with_labels=True)  # the dataset's folders are missing
    assert not is_finished(folder)


def test_a_fingerprint_is_the_same_in_another_process(movies):
    code = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]!r}\n"
        "from pathlib import Path\nfrom test_finished_studies import LABELS, fingerprint, source_of\n"
        f"print(fingerprint(source_of(Path({str(movies)!r})), LABELS))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == fingerprint(source_of(movies), LABELS)


@pytest.mark.parametrize(
    "change",
    [
        {"study": "b"},
        {"ed": 1},
        {"cyclic": True},
        {"view": "4CH"},
        {"spacing": Spacing((2.0, 2.0))},
        {"load_labels": None},
        {"load_labels": partial(read_image, Path("elsewhere.nii.gz"))},
    ],
)
def test_whatever_the_files_follow_from_changes_the_fingerprint(movies, change):
    source = source_of(movies)
    assert fingerprint(source, LABELS) == fingerprint(source_of(movies), LABELS)
    assert fingerprint(replace(source, **change), LABELS) != fingerprint(source, LABELS)
    assert fingerprint(source, {"background": 0, "MYO": 1, "ignore": 2}) != fingerprint(source, LABELS)


def test_a_study_that_cannot_be_pickled_never_counts_as_finished():
    source = StudySource("a", lambda: np.zeros((2, 3, 3)))
    assert fingerprint(source, LABELS) != fingerprint(source, LABELS)
