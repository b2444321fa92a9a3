"""The page as text: what stands on it is what was measured, and names stay text."""

import dataclasses
import html
import json
import math
import re

import numpy as np
import pytest
from mask_folders import IGNORE, MYO, SCHEME
from segmented_hearts import beating, describe, drawn_at, film_of, segmented

from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.report.page import render_page
from nnunet_temporal.report.page_content import frame_ranges, number

HEART = beating()
STACK = {"slice_spacing_mm": 300.0, "cyclic": True, "ed": 0, "es": 2, "frame_interval_s": 0.04}
EVIL = "<img src=x onerror=alert(1)>\"' </script><script>alert(2)</script> Müller &amp;"


@pytest.fixture(scope="module")
def compared():
    """Three studies with an expert: ejection fractions of 64 % against 36, 64 and 84 %."""
    return [
        describe(segmented(HEART, drawn_at(beating(halves), 0, 2), name=name, **STACK), name=name)
        for name, halves in (("a", (5, 4, 4, 4)), ("b", (5, 4, 3, 4)), ("c", (5, 4, 2, 4)))
    ]


def render(*studies, labels=SCHEME, title="a title"):
    return render_page(title, studies, labels, [("Made", "today")])


def row_of(page, place):
    row = re.search(rf'<tr data-study="{place}">(.*?)</tr>', page, re.DOTALL)[1]
    return [html.unescape(value) for value in re.findall(r'data-value="(.*?)"', row)]


def test_the_table_holds_the_figures_of_every_study(compared):
    page = render(*compared)
    # Voxels of 1 x 1 x 300 mm, two slices: 100 pixels are 60 ml. Dice at ES is 0.72 of the cavity, 0.5 of the wall.
    assert row_of(page, 0) == ["a", "64", "36", "60", "21.6", "0.805", str(len(compared[0].flags))]
    assert [row_of(page, place)[2] for place in (0, 1, 2)] == ["36", "64", "84"]


def test_the_summary_and_the_agreement_are_those_of_the_differences(compared):
    page = html.unescape(render(*compared))
    # Differences of 28, 0 and -20 points.
    assert "+2.7" in page
    assert "bias +2.7 points, limits of agreement -44.6 to +49.9 points, mean error 16.0 points" in page
    assert page.count("Bland-Altman plot of") == 3
    assert "Median EF" in page


def test_without_an_expert_there_is_no_agreement():
    page = render(describe(segmented(HEART, **STACK)), describe(segmented(HEART, **STACK)))
    assert "Agreement with the expert" not in page and "against the expert" not in page
    assert row_of(page, 0)[1:6] == ["64", "", "60", "21.6", ""]


def test_a_single_compared_study_has_no_plot(compared):
    assert "Bland-Altman" not in render(compared[0])


def test_the_headline_shows_prediction_and_expert(compared):
    page = render(compared[0])
    assert "<dt>Ejection fraction</dt><dd>64 % <small>expert 36 %</small></dd>" in page
    assert "<dt>EDV</dt><dd>60 ml <small>expert 60 ml</small></dd>" in page


def test_an_area_is_called_an_area_and_is_no_ejection_fraction():
    study = describe(segmented(HEART[:, 0], drawn_at(HEART[:, 0], 0, 2), ed=0, es=2))
    page = render(study, study)
    assert "<dt>Area change</dt><dd>64 % <small>expert 64 %</small></dd>" in page
    assert "Ejection fraction" not in page and "Median EF" not in page
    assert row_of(page, 0)[1:5] == ["", "", "", ""]
    assert "Bland-Altman plot of EF" not in page


def test_names_of_studies_labels_and_views_stay_text():
    labels = LabelScheme({EVIL: 1, "MYO": MYO}, IGNORE, {"LV": EVIL, "MYO": "MYO"})
    stack = segmented(HEART[:, 0], drawn_at(HEART[:, 0], 0, 2), labels=labels, name=EVIL, view=EVIL.replace("/", ""))
    studies = [describe(stack, stack, name=EVIL, labels=labels) for _ in range(2)]
    page = render_page(EVIL, studies, labels, [(EVIL, EVIL)])
    assert "<img src=x" not in page
    # Of each study its film, the labels, and our own script.
    assert page.count("<script") == page.count("</script>") == 4
    assert "alert(2)</script>" not in page
    assert row_of(page, 0)[0] == EVIL
    assert film_of(page)[0][0]["name"] == EVIL


def test_the_page_asks_for_nothing_outside(compared):
    page = render(*compared)
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    assert re.findall(r"url\(|@import|https?://(?!www\.w3\.org)", page) == []
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)[1]
    assert html.unescape(policy).startswith("default-src 'none'; img-src data:;")
    assert "For research use only. Not a medical device." in page


@pytest.mark.parametrize(
    "stack",
    [
        lambda: segmented(HEART[:1, 0]),
        lambda: segmented(HEART[:1], **{**STACK, "ed": None, "es": None}),
        lambda: segmented(np.zeros_like(HEART), **STACK),
        lambda: segmented(np.zeros_like(HEART), drawn_at(HEART, 0, 2)),
        lambda: segmented(HEART[:, :1], **{**STACK, "pixel_mm": None}),
        lambda: segmented(HEART[:, 0], view="4CH", ed=0, es=2),
        lambda: segmented(HEART, ed=1),
        lambda: segmented(HEART, ed=0, es=0),
    ],
    ids=["frame", "frame of a stack", "empty", "empty with truth", "no spacing", "4CH", "only ED", "ED is ES"],
)
def test_odd_studies_have_a_page(stack):
    page = render(describe(stack()))
    assert "<dt>Made</dt>" in page
    assert not re.search(
        r"\b(nan|inf|None)\b", re.sub(r"<script>.*?</script>|<style>.*?</style>", "", page, flags=re.S)
    )


def test_two_views_have_a_viewer_each():
    stacks = [segmented(HEART[:, 0], name=f"e {view}", view=view, ed=0, es=2) for view in ("2CH", "4CH")]
    page = render(describe(*stacks, name="e"))
    assert page.count('<div class="viewer">') == 2
    assert "<h3>e 2CH</h3>" in page
    assert [film["name"] for film in film_of(page)[0]] == ["e 2CH", "e 4CH"]


def test_labels_without_a_ventricle_and_more_labels_than_colours_have_a_page():
    labels = LabelScheme({f"part {value}": value for value in range(1, 9)}, IGNORE, {})
    masks = np.zeros((3, 2, 24, 24), np.uint8)
    for value in range(1, 9):
        masks[:, :, 2 * value : 2 * value + 2, 4:18] = value
    page = render(describe(segmented(masks, labels=labels, slice_spacing_mm=8.0), labels=labels), labels=labels)
    assert html.unescape(page).count("part 8") > 1
    assert "there is no left ventricle" in page


def test_a_film_that_was_thinned_says_so():
    study = describe(segmented(beating((5, 4, 3, 4) * 4), **STACK), budget=100)
    assert "s: 2 of 16 frames are shown, to keep the page small." in render(study)


def test_a_film_takes_no_more_of_the_page_than_it_was_given():
    stack, budget = segmented(beating((5, 4, 3, 4) * 4), **STACK), 20_000
    page = render(describe(stack, budget=budget))
    assert 0.5 * budget < len(json.dumps(film_of(page)[0], separators=(",", ":"))) < 1.05 * budget
    assert ", " not in page.split('class="film">')[1].split("</script>")[0]


def test_flags_lead_to_their_frames():
    masks = HEART.copy()
    masks[1, 1, 0:5, 0:4] = 1
    page = render(describe(segmented(masks, **STACK)))
    line = re.search(r'<li data-stack="0" data-slice="1" data-frames="1">(.*?)</li>', page)[1]
    assert "<strong>several parts</strong> (slice 1): LV has more than one part" in line and "(frame 1)" in line


def test_frames_in_a_row_are_written_as_ranges():
    assert frame_ranges([]) == ""
    assert frame_ranges([3]) == "3"
    assert frame_ranges([0, 1, 2, 5, 7, 8]) == "0\u20132, 5, 7\u20138"


def test_numbers_that_do_not_exist_are_a_dash():
    assert (number(math.nan), number(math.inf), number(1.26, 1)) == ("\u2013", "\u2013", "1.3")


def test_two_hundred_studies_stay_below_fifteen_megabytes(compared):
    studies = [dataclasses.replace(compared[0], layout={**compared[0].layout, "name": f"p{n}"}) for n in range(200)]
    assert len(render(*studies).encode()) < 15_000_000
