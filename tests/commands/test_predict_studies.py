"""``predict --seed``: masks propagated through whole movies, from given ones or from the model's own."""

import contextlib
import csv
import io
import re

import nibabel
import numpy as np
import pytest
import torch
from nifti_movies import save_nifti
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from phantom_dataset import masks, movie
from trained_models import DATASET, write_model

from nnunet_temporal.cli import main
from nnunet_temporal.inference import cluster
from nnunet_temporal.inference.study import split_studies
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, Sequence
from nnunet_temporal.trainers.cstm import nnUNetTrainerCSTM
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM

FRAMES, SLICES = 6, 2
ZOOMS = (1.25, 1.5, 8.0, 0.03)
COLUMNS = ["slice", "frame", "region", "origin", "confidence", "agreement", "jump_px"]


@pytest.fixture
def results(nnunet_folders):
    """Write the model; return the folder of models."""
    folder = nnunet_folders.results / "Dataset777_Phantom"
    write_model(folder / "nnUNetTrainerCSTM__plans__2dt", nnUNetTrainerCSTM)
    return folder


@pytest.fixture
def work(results, tmp_path):
    """Write two movies of two slices beside the model; return the folder with all of them."""
    for name, seed in (("a", 1), ("b", 2)):
        save_nifti(tmp_path / "movies" / f"{name}.nii.gz", movie(FRAMES, seed).transpose(3, 2, 1, 0), ZOOMS)
    return tmp_path


def predict(source, output, *words, trainer="nnUNetTrainerCSTM"):
    """Run the command on the CPU; return the exit code and what it printed on both channels."""
    words = ("-d", 777, "-tr", trainer, "-p", "plans", "-device", "cpu", *words)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = main(["predict", "-i", str(source), "-o", str(output), *map(str, words)])
    return code, printed.getvalue()


def drawn(*places):
    """Return label values (x, y, z, t) with a mask at some places (slice, frame)."""
    found = np.zeros((FRAMES, SLICES, 40, 36), np.uint8)
    for z, t in places:
        found[t, z] = masks(FRAMES)[t, z]
    return found.transpose(3, 2, 1, 0)


def pixels(path):
    return np.asarray(nibabel.load(path).dataobj)


def lines_of(output, name="a"):
    """Return what is known of each frame, by place."""
    with (output / f"{name}_frames.csv").open(newline="", encoding="utf-8") as content:
        lines = list(csv.DictReader(content))
    assert list(lines[0]) == COLUMNS
    assert [(line["slice"], line["frame"]) for line in lines] == [
        (str(z), str(t)) for z in range(SLICES) for t in range(FRAMES)
    ]
    return {(int(line["slice"]), int(line["frame"])): line for line in lines}


def seeds_of(output, name="a"):
    return [place for place, line in lines_of(output, name).items() if line["origin"] == "seed"]


def check_seeds(output, name, on_disk, *places):
    """Assert that the masks at these places, and at no others, are the given ones, bit for bit."""
    found = pixels(output / f"{name}.nii.gz")
    for z, t in places:
        np.testing.assert_array_equal(found[:, :, z, t], on_disk[:, :, z, t])
    assert seeds_of(output, name) == sorted(places)


def test_movies_get_masks_and_a_line_for_every_frame_from_the_models_own_mask(work):
    code, printed = predict(work / "movies", work / "masks", "--seed", "auto")
    assert code == 0, printed
    assert "2 files predicted" in printed and "*_frames.csv beside the masks" in printed
    for name in "ab":
        found = nibabel.load(work / "masks" / f"{name}.nii.gz")
        assert found.shape == (36, 40, SLICES, FRAMES)
        assert set(np.unique(found.dataobj)) <= {0, 1, 2} and np.any(found.dataobj)
        assert len(seeds_of(work / "masks", name)) == 1
        assert all(0 <= float(line["confidence"]) <= 1 for line in lines_of(work / "masks", name).values())
    assert (work / "masks" / "plans.json").is_file() and (work / "masks" / "dataset.json").is_file()


def test_a_given_file_of_masks_is_kept_as_it_is_and_the_rest_follows(work):
    seed = save_nifti(work / "seed.nii.gz", drawn((0, 1), (0, 4), (1, 4)), ZOOMS)
    code, printed = predict(work / "movies" / "a.nii.gz", work / "masks", "--seed", seed)
    assert code == 0, printed
    check_seeds(work / "masks", "a", pixels(seed), (0, 1), (0, 4), (1, 4))
    assert not (pixels(work / "masks" / "a.nii.gz")[..., 0] == pixels(seed)[..., 0]).all()  # nobody drew this frame


def test_every_movie_takes_the_mask_of_its_name_from_a_folder(work):
    places = {"a": (1, 0), "b": (0, 3)}
    for name, place in places.items():
        save_nifti(work / "seeds" / f"{name}.nii.gz", drawn(place), ZOOMS)
    code, printed = predict(work / "movies", work / "masks", "--seed", work / "seeds")
    assert code == 0, printed
    for name, place in places.items():
        check_seeds(work / "masks", name, drawn(place), place)


def test_a_file_of_one_moment_is_put_where_it_is_told(work):
    seed = save_nifti(work / "seed.nii.gz", drawn((0, 3), (1, 3))[..., 3], ZOOMS)
    code, printed = predict(work / "movies" / "a.nii.gz", work / "masks", "--seed", seed, "--t0", 3)
    assert code == 0, printed
    check_seeds(work / "masks", "a", drawn((0, 3), (1, 3)), (0, 3), (1, 3))
    code, printed = predict(work / "movies" / "a.nii.gz", work / "masks", "--seed", seed)
    assert code == 1 and f"{seed}: holds one moment" in printed


def test_a_movie_without_slices_is_propagated_along_time(work):
    image = save_nifti(work / "echo.nii.gz", movie(FRAMES, 1)[:, 0].transpose(2, 1, 0), (1.25, 1.5, 0.03))
    seed = save_nifti(work / "seed.nii.gz", drawn((0, 2))[:, :, 0, 2:3], (1.25, 1.5, 1.0))
    code, printed = predict(image, work / "masks", "--seed", seed, "--t0", 2)
    assert code == 0, printed
    found = pixels(work / "masks" / "echo.nii.gz")
    assert found.shape == (36, 40, FRAMES)
    np.testing.assert_array_equal(found[..., 2], pixels(seed)[..., 0])
    with (work / "masks" / "echo_frames.csv").open(newline="") as content:
        assert [line["origin"] for line in csv.DictReader(content)] == ["time"] * 2 + ["seed"] + ["time"] * 3


def test_masks_have_header_and_affine_of_their_movie(work):
    affine = np.array([[1.2, 0.3, -2.0, 7.0], [-0.4, 1.3, 3.0, -9.5], [0.2, -0.5, 7.0, 31.0], [0, 0, 0, 1.0]])
    image = nibabel.Nifti1Image(movie(FRAMES, 1).transpose(3, 2, 1, 0), affine)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, work / "oblique.nii.gz")
    for file in (work / "oblique.nii.gz", work / "movies" / "a.nii.gz"):
        code, printed = predict(file, work / "masks", "--seed", "auto")
        assert code == 0, printed
        found, original = (nibabel.load(folder / file.name) for folder in (work / "masks", file.parent))
        np.testing.assert_array_equal(found.affine, original.affine)
        expected = original.header.copy()
        expected.set_data_dtype(np.uint8)
        assert found.header == expected


def test_a_later_call_adds_what_is_missing(work):
    assert predict(work / "movies" / "a.nii.gz", work / "masks", "--seed", "auto")[0] == 0
    before = (work / "masks" / "a.nii.gz").stat().st_mtime_ns
    _, printed = predict(work / "movies", work / "masks", "--seed", "auto", "--continue_prediction")
    assert "1 files predicted" in printed
    assert (work / "masks" / "a.nii.gz").stat().st_mtime_ns == before
    assert (work / "masks" / "b.nii.gz").is_file() and (work / "masks" / "b_frames.csv").is_file()


def test_a_missing_seed_stops_no_other_movie_and_is_listed(work):
    save_nifti(work / "seeds" / "b.nii.gz", drawn((0, 0)), ZOOMS)
    code, printed = predict(work / "movies", work / "masks", "--seed", work / "seeds")
    assert code == 1
    assert "1 files predicted" in printed and "1 could not be predicted" in printed
    assert f"{work / 'movies' / 'a.nii.gz'}: {work / 'seeds'}: found no seed a.nii.gz" in printed
    check_seeds(work / "masks", "b", drawn((0, 0)), (0, 0))
    assert not list((work / "masks").glob("a*"))


def test_a_manifest_beside_the_movies_tells_the_end_diastolic_frame(work):
    facts = Sequence("a_z00", "a", FRAMES, (), slice=0, ed=4, es=1)
    Manifest({facts.case: facts}).write(work / "movies" / MANIFEST_NAME)
    image, seed = work / "movies" / "a.nii.gz", save_nifti(work / "seed.nii.gz", drawn((1, 4))[..., 4], ZOOMS)
    for n, (words, frame) in enumerate(
        [(("auto",), 4), (("auto", "--t0", "ed"), 4), (("auto", "--t0", 2), 2), ((seed,), 4), ((seed, "--t0", 2), 2)]
    ):
        code, printed = predict(image, work / str(n), "--seed", *words)
        assert code == 0, printed
        assert [t for _, t in seeds_of(work / str(n))] == [frame]


def test_another_model_may_make_the_first_mask(work, results):
    other = write_model(results / "nnUNetTrainer__plans__2d", nnUNetTrainer, "2d", folds=(1,))
    image = work / "movies" / "a.nii.gz"
    assert predict(image, work / "alone", "-c", "2d", "-f", 1, trainer="nnUNetTrainer")[0] == 0
    words = ("--seed_model", other, "--seed_slices", "all", "--t0", 2)
    code, printed = predict(image, work / "masks", "--seed", "auto", *words)
    assert code == 0, printed
    # It looks at each frame alone, so that all others cannot matter.
    check_seeds(work / "masks", "a", pixels(work / "alone" / "a.nii.gz"), (0, 2), (1, 2))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, "MYO": 1, "LV": 2}, "found the labels {'background': 0, 'MYO': 1, 'LV': 2}, expected"),
        ({"background": 0, "LV": 1}, "found the labels {'background': 0, 'LV': 1}, expected"),
    ],
)
def test_another_model_of_other_labels_is_refused(labels, message, work, results):
    other = write_model(results / "other", nnUNetTrainer, "2d", dataset={**DATASET, "labels": labels})
    code, printed = predict(work / "movies", work / "masks", "--seed", "auto", "--seed_model", other)
    assert code == 2 and f"seed model: {message}" in printed


@pytest.mark.parametrize(
    ("words", "column", "expected"),
    [
        (("--continuity", "slices"), "origin", {"seed", "slices"}),
        (("--continuity", "time"), "origin", {"seed", "time"}),
        (("--regions", 1, 0, 1, "--apex", "first"), "region", {"apex", "base"}),
        (("--apex", "last"), "region", {"middle"}),
    ],
)
def test_flags_say_how_masks_are_propagated(words, column, expected, work):
    seed = save_nifti(work / "seed.nii.gz", drawn((0, 0)), ZOOMS)
    code, printed = predict(work / "movies" / "a.nii.gz", work / "masks", "--seed", seed, *words)
    assert code == 0, printed
    lines = lines_of(work / "masks")
    assert {line[column] for line in lines.values()} == expected
    assert "apex" not in expected or lines[0, 0]["region"] == "apex"


@pytest.mark.parametrize(("cyclic", "direction", "compared"), [
    ("yes", "both", {0, 1, 2, 3, 4, 5}), ("yes", "forward", {0}), ("no", "both", set()),
])  # fmt: skip
def test_in_a_whole_beat_masks_are_compared_with_those_from_the_other_side(cyclic, direction, compared, work):
    seed = save_nifti(work / "seed.nii.gz", drawn((0, 0)), ZOOMS)
    words = ("--cyclic", cyclic, "--direction", direction, "--tmax", 4, "--topk", 2, "--scales", 2, "--patch", 2)
    code, printed = predict(work / "movies" / "a.nii.gz", work / "masks", "--seed", seed, *words)
    assert code == 0, printed
    assert {t for (z, t), line in lines_of(work / "masks").items() if line["agreement"] and z == 0} == compared


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("auto", "--both_ways"), "--both_ways: not with --seed"),
        (("auto", "--compile"), "--compile: not with --seed"),
        (("auto", "--smooth", 7), "--smooth: not with --seed"),
        (("auto", "--regions", 1, 0, 1), "say where the apex is"),
        (("auto", "--tmax", 1), "tmax: found 1, expected 2 or more"),
        (("auto", "--topk", 0), "of which 0 are read"),
        (("auto", "--patch", 3), "found patches of 3 pixels of which"),
        (("auto", "--scales", "0,1"), "found scales (0, 1), expected some of [1, 2]"),
        (("auto", "--save_probabilities"), "--save_probabilities"),
        (("nowhere",), "--seed nowhere: does not exist"),
        (("SEED",), "is one mask, but there are 2 movies"),
        (("SEED", "--seed_model", "somewhere"), "are for '--seed auto'"),
        (("SEED", "--seed_slices", "all"), "are for '--seed auto'"),
    ],
)
def test_what_cannot_be_done_is_said(words, message, work):
    seed = save_nifti(work / "seed.nii.gz", drawn((0, 0)), ZOOMS)
    words = [seed if word == "SEED" else word for word in words]
    code, printed = predict(work / "movies", work / "masks", "--seed", *words)
    assert code == 2 and message in printed
    assert not (work / "masks").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--t0", 6), "found frame 6 to begin with, expected one of 0..5"),
        (("--regions", 1, 1, 1, "--apex", "last"), "regions: found 1 1 1, expected numbers of slices .* add up to 2"),
    ],
)
def test_what_does_not_fit_the_movies_is_said_for_each(words, message, work):
    code, printed = predict(work / "movies", work / "masks", "--seed", "auto", *words)
    assert code == 1 and "2 could not be predicted" in printed
    for name in "ab":
        assert re.search(f"{name}.nii.gz: {message}", printed), printed


def test_sequences_are_refused(work):
    split_studies(sorted((work / "movies").iterdir()), work / "sequences")
    code, printed = predict(work / "sequences", work / "masks", "--seed", "auto")
    assert code == 2 and "--seed: found sequences such as a_z00_0000.nii.gz" in printed and "expected movies" in printed


def test_a_model_that_remembers_no_masks_is_refused(work, results):
    write_model(results / "nnUNetTrainerGDKVM__plans__2dt", nnUNetTrainerGDKVM)
    code, printed = predict(work / "movies", work / "masks", "--seed", "auto", trainer="nnUNetTrainerGDKVM")
    assert code == 2
    assert "masks are propagated through a study by CSTM only, found" in printed and "nnUNetTrainerCSTM" in printed


@pytest.mark.slow
def test_workers_that_run_elsewhere_write_what_one_process_does(work, results, monkeypatch, findable_trainers):
    write_model(results / "other", nnUNetTrainer, "2d", folds=(1,))
    for name in "ab":
        save_nifti(work / "seeds" / f"{name}.nii.gz", drawn((1, 0)), ZOOMS)
    other = ("--seed_model", results.relative_to(work) / "other")
    here = torch.get_num_threads()
    torch.set_num_threads(1)  # as each worker does with its share; other numbers of threads round otherwise
    try:
        with cluster.local_workers(2, retries=0) as client:
            monkeypatch.chdir(work)
            engine = ("--engine", "dask", "--scheduler", client.scheduler.address)
            for start in (("seeds",), ("auto", *other)):
                assert predict("movies", f"alone_{start[0]}", "--seed", *start)[0] == 0
                code, printed = predict("movies", f"dealt_{start[0]}", "--seed", *start, *engine)
                assert code == 0 and "2 files predicted" in printed, printed
    finally:
        torch.set_num_threads(here)
    for alone in [*work.glob("alone_*/*.nii.gz"), *work.glob("alone_*/*_frames.csv")]:
        dealt = work / alone.parent.name.replace("alone", "dealt") / alone.name
        assert alone.read_bytes() == dealt.read_bytes(), dealt


@pytest.mark.parametrize("words", [("--tmax", 3), ("--t0", "ed"), ("--apex", "auto"), ("--seed_slices", "middle")])
def test_flags_of_the_propagation_are_refused_without_it(words, work):
    code, printed = predict(work / "movies", work / "masks", *words)
    assert code == 2 and f"{words[0]}: says how masks are propagated" in printed


def test_a_moment_is_refused_for_masks_of_all_moments(work):
    seed = save_nifti(work / "seed.nii.gz", drawn((0, 0)), ZOOMS)
    code, printed = predict(work / "movies" / "a.nii.gz", work / "masks", "--seed", seed, "--t0", 1)
    assert code == 1 and "holds masks of all moments" in printed
