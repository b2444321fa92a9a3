"""The reference pages name everything there is, and nothing else: options, plans, manifest, metrics, trainers."""

import argparse
import csv
import json
import re
from dataclasses import MISSING, fields

import numpy as np
import pytest
from documentation_pages import ROOT, blocks_of, code_in, read_page, section_of, table_rows
from ellipsoid_views import Ellipsoid, draw_view
from mask_folders import square, write_dataset, write_masks

from nnunet_temporal.cli import VERBS, build_parser, main
from nnunet_temporal.evaluation.options import COMPATIBILITY_MODES
from nnunet_temporal.plans import TemporalConfig
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, Sequence
from nnunet_temporal.trainers import variants


def parsers_of(verb):
    """Return the parser of a verb, or those of its sub-commands."""
    (verbs,) = sub_commands(build_parser(verb))
    inner = sub_commands(verbs.choices[verb])
    return list(inner[0].choices.values()) if inner else [verbs.choices[verb]]


def sub_commands(parser):
    return [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]


def options_of(verb):
    """Return {names of an option: the actions of this name in the verb's parsers}."""
    options = {}
    for parser in parsers_of(verb):
        for action in parser._actions:
            if action.option_strings and not isinstance(action, argparse._HelpAction):
                options.setdefault(tuple(action.option_strings), []).append(action)
    return options


def described_options(verb):
    """Return {names of an option: its rows} of the page's section."""
    rows = {}
    for row in table_rows(section_of(read_page("reference/command_line.md"), f"## {verb}")):
        rows.setdefault(tuple(code.split()[0] for code in code_in(row[0])), []).append(row)
    return rows


@pytest.mark.parametrize("verb", VERBS)
def test_the_page_of_the_command_line_has_each_verb_and_option_and_no_other(verb):
    text = read_page("reference/command_line.md")
    assert section_of(text, f"## {verb}"), f"documentation/reference/command_line.md has no section '## {verb}'"
    assert f"](#{verb})" in section_of(text, "# The command line").partition("\n## ")[0], f"no link to {verb}"
    assert set(described_options(verb)) == set(options_of(verb))


@pytest.mark.parametrize("verb", VERBS)
def test_the_page_of_the_command_line_has_each_choice_and_default(verb):
    described = described_options(verb)
    for names, actions in options_of(verb).items():
        text = " ".join(cell for row in described.get(names, []) for cell in row)
        assert ("**required**" in text) == any(action.required for action in actions)
        for action in actions:
            missing = [choice for choice in action.choices or () if f"`{choice}`" not in text]
            # Of several datasets, the page has the names and views in its other tables.
            assert not missing or verb == "convert", f"{names}: {missing}"
            if isinstance(action.default, str | int | float) and type(action.default) is not bool and len(actions) == 1:
                value = action.default if isinstance(action.default, str) else f"{action.default:g}"
                assert value in text, f"{names}: {value}"


def test_the_page_says_which_datasets_have_an_option():
    (verbs,) = sub_commands(build_parser("convert"))
    (datasets,) = sub_commands(verbs.choices["convert"])
    every = set(datasets.choices)
    for names, rows in described_options("convert").items():
        having = {name for name, parser in datasets.choices.items() if names[-1] in parser._option_string_actions}
        named = {code for row in rows for code in code_in(row[1]) if code in every}
        assert (named or every) == having, names


def test_plans_keys_are_those_of_the_plans():
    rows = table_rows(section_of(read_page("reference/plans_keys.md"), "## Keys"))
    assert [code_in(row[0])[0] for row in rows] == [field.name for field in fields(TemporalConfig)]
    kinds = {int: "whole number", float: "number"}
    for row, field in zip(rows, fields(TemporalConfig), strict=True):
        assert row[1].startswith(kinds.get(field.type, "list"))
        assert ("null" in row[1]) == ("None" in str(field.type))


def test_the_example_of_the_plans_is_a_valid_configuration():
    (block,) = blocks_of(read_page("reference/plans_keys.md"), "json")
    TemporalConfig.from_configuration(json.loads(block.text))


def test_manifest_fields_are_those_of_a_sequence():
    rows = table_rows(section_of(read_page("reference/manifest.md"), "## Fields"))
    known = [field for field in fields(Sequence) if field.name != "case"]
    assert [code_in(row[0])[0] for row in rows] == [field.name for field in known]
    for row, field in zip(rows, known, strict=True):
        default = "required" if field.default is MISSING else f"`{json.dumps(field.default)}`"
        assert row[2] == default


def test_the_example_of_the_manifest_is_valid(tmp_path):
    (block,) = blocks_of(read_page("reference/manifest.md"), "json")
    (tmp_path / MANIFEST_NAME).write_text(block.text)
    assert len(Manifest.load(tmp_path)) == 2


def test_trainers_are_those_that_nnunet_finds():
    text = read_page("reference/trainers.md")
    methods = [*variants.METHODS, *variants.SEMI_SUPERVISED, *variants.DISTILLED]
    named = [name for row in table_rows(section_of(text, "## Methods")) for name in code_in(row[0])]
    assert sorted(named) == sorted(method.__name__ for method in methods)
    endings = [ending for row in table_rows(section_of(text, "## Lengths")) for ending in code_in(row[0])]
    assert sorted([*named, *(name + ending for name in named for ending in endings)]) == sorted(variants.VARIANTS)


def test_the_installation_names_every_extra():
    rows = table_rows(read_page("getting_started/installation.md"))
    declared = re.findall(
        r'^ +"(\w+)": \w+_REQUIREMENTS,$', (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(code_in(row[0])[0] for row in rows) == sorted(declared)


# Words of the metrics page that stand for others.
PATTERNS = {
    "SIDE": "(predicted|reference)",
    "VALUE": "(predicted|reference|difference)",
    "UNIT": "(mm|px)",
    "TOLERANCE": r"[\d.]+",
    "ATTRIBUTE": "(ventricle_area|base_width|length|orientation|myocardium_area|centre_x|centre_y)",
}


@pytest.fixture(scope="module")
def written_columns(tmp_path_factory):
    """Evaluate a stack, two apical views and masks without a pixel size, with all there is; return columns by table."""
    columns = {table: set() for table in ("frames", "sequences", "studies", "comparison")}
    for number, write in enumerate((write_stack, write_views, write_pixels)):
        root = tmp_path_factory.mktemp(f"evaluated_{number}")
        reference = write(root)
        arguments = ["evaluate", "-ref", str(reference), "-pred", str(root / "pred"), "-np", "1", "--compare"]
        assert main([*arguments, str(root / "pred"), "--compat", *COMPATIBILITY_MODES]) == 0
        for table in columns:
            with (root / "pred" / f"{table}.csv").open() as file:
                columns[table] |= set(next(csv.reader(file)))
    return columns


def write_stack(root):
    """Two slices with ring and right ventricle, every frame labelled, one heart beat."""
    labels = {"background": 0, "LV": 1, "MYO": 2, "RV": 3, "ignore": 4}
    frames = [square(2, 3, side) + 2 * square(2, 3 + side, 2) + 3 * square(9, 9, 2 + side // 3) for side in (6, 3, 4)]
    entry = {"study": "a", "ed": 0, "es": 1, "cyclic": True, "slice_spacing_mm": 8.0, "frame_interval_s": 0.1}
    masks = {f"a_z{z:02d}": np.stack(frames).astype(np.uint8) for z in (0, 1)}
    write_masks(root / "pred", masks)
    return write_dataset(root, masks, {case: {**entry, "slice": int(case[-1])} for case in masks}, labels)


def write_views(root):
    """Both apical views of a contracting heart, and one of another."""
    labels = {"background": 0, "LV": 1, "MYO": 2, "LA": 3, "ignore": 4}
    views = [draw_view(Ellipsoid(45 - 3 * t, 25 - 3 * t), 2.0) for t in (0, 1, 2)]
    movie = np.stack([view.ventricle + 2 * view.myocardium + 3 * view.atrium for view in views]).astype(np.uint8)
    masks = {case: movie for case in ("a_2CH", "a_4CH", "b_4CH")}
    entry = {"ed": 0, "es": 2, "frame_interval_s": 0.05}
    write_masks(root / "pred", masks, (2.0, 2.0))
    entries = {case: {**entry, "study": case[0], "view": case[-3:]} for case in masks}
    folder = write_dataset(root, masks, entries, labels)
    write_masks(folder, masks, (2.0, 2.0))
    return folder


def write_pixels(root):
    """One sequence whose pixels have no known size."""
    masks = {"a": np.stack([square(2, 3, side) for side in (6, 3, 4)])}
    write_masks(root / "pred", masks)
    entries = {"a": {"study": "a", "ed": 0, "es": 1, "pixel_spacing_known": False}}
    return write_dataset(root, masks, entries)


def pattern(name):
    """Return the regular expression that a column of the page stands for."""
    return "".join(PATTERNS.get(part, re.escape(part)) for part in re.split(f"({'|'.join(PATTERNS)})", name))


@pytest.mark.parametrize("table", ["frames", "sequences", "studies", "comparison"])
def test_the_metrics_page_has_each_column_and_no_other(written_columns, table):
    rows = table_rows(section_of(read_page("reference/metrics.md"), f"## {table}.csv"))
    described = [name for row in rows for name in code_in(row[0])]
    written = written_columns[table]
    missing = sorted(name for name in written if not any(re.fullmatch(pattern(one), name) for one in described))
    too_many = [one for one in described if not any(re.fullmatch(pattern(one), name) for name in written)]
    assert (missing, too_many) == ([], [])
    assert len(described) == len(set(described))
