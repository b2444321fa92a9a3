import argparse

import pytest

from nnunet_temporal.commands import phantom
from nnunet_temporal.datasets.phantom.dataset import PhantomPlan
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Manifest

SMALL = ("-n", 2, "--size", 32, "--frames-per-cycle", "8-9")


def parse(*words):
    parser = argparse.ArgumentParser()
    phantom.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def run(*words):
    return phantom.run(parse(*words))


@pytest.fixture
def planned(monkeypatch, nnunet_folders):
    """Return a function that gives the plan and the name which a command line asks for, without drawing."""
    seen = []

    def remember(plan, info, folder, *, overwrite):
        seen.append((plan, info))
        raise InputError("stop")

    monkeypatch.setattr(phantom, "write_phantom_dataset", remember)

    def plan_of(*words):
        with pytest.raises(InputError, match="stop"):
            run(*words)
        return seen[-1]

    return plan_of


def test_phantoms_become_a_raw_dataset_and_a_summary(nnunet_folders, capsys):
    assert run("-d", 5, "--modality", "cine", *SMALL, "--unlabelled", 1, "--test", 1) == 0
    folder = nnunet_folders.raw / "Dataset005_PhantomCine"
    manifest = Manifest.load(folder)
    printed = capsys.readouterr().out
    n_labelled = 2 * sum(sequence.study != "unlabelled000" for sequence in manifest.values())
    for text in ("4, held out: 1", f"labelled: {n_labelled}", str(folder / "truth"), "-f 0 1"):
        assert text in printed
    assert printed.endswith("Next:  nnunet_temporal plan_and_preprocess -d 5\n")


def test_every_option_reaches_the_plan(planned):
    words = ("--unlabelled", 3, "--test", 2, "--size", 64, "--frames-per-cycle", "12.5-40", "--beats", "0.5-2")
    plan, info = planned("-d", 7, "--modality", "echo", "-n", 4, *words, "--seed", 11, "--name", "Mine")
    assert plan == PhantomPlan("echo", 4, 3, 2, 64, (12.5, 40.0), (0.5, 2.0), seed=11)
    assert (info.dataset_id, info.name, info.channel) == (7, "Mine", "US")


def test_a_cine_has_one_beat_and_an_echo_a_few_unless_told_otherwise(planned):
    beats = {modality: planned("-d", 7, "--modality", modality, "-n", 2)[0].beats for modality in ("cine", "echo")}
    assert beats == {"cine": (1.0, 1.0), "echo": (0.5, 4.0)}


def test_a_segment_is_lost_only_if_asked_for(planned):
    plans = [planned("-d", 7, "--modality", "echo", "-n", 2, *words)[0] for words in ([], ["--lost-segment"])]
    assert [plan.lost_segment for plan in plans] == [False, True]


def test_one_number_is_a_range_of_that_number(planned):
    assert planned("-d", 7, "--modality", "cine", "-n", 2, "--beats", "1.5")[0].beats == (1.5, 1.5)


def test_the_seed_has_a_default_and_the_name_follows_the_modality(planned):
    plan, info = planned("-d", 7, "--modality", "echo", "-n", 2)
    assert plan.seed == 0 and info.name == "PhantomEcho"


@pytest.mark.parametrize("text", ["a-b", "1-", "-", "1-2-3", ""])
def test_a_range_that_is_none_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        parse("-d", 7, "--modality", "cine", "-n", 2, f"--beats={text}")
    assert "expected a range such as 12-80, or one number" in capsys.readouterr().err


def test_an_id_of_another_dataset_is_refused(nnunet_folders):
    (nnunet_folders.results / "Dataset005_Hearts").mkdir()
    with pytest.raises(InputError, match="already used"):
        run("-d", 5, "--modality", "cine", *SMALL)


def test_a_missing_raw_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(InputError, match="nnUNet_raw"):
        run("-d", 5, "--modality", "cine", *SMALL)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="nowhere"):
        run("-d", 5, "--modality", "cine", *SMALL)
