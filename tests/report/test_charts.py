"""Charts: points stand where their values say, and all of it can be read aloud."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from nnunet_temporal.report.charts import Axes, Line, Pairs, bland_altman_chart, curve_chart, scatter_chart

# Corners of the plot in the picture: left, right, top, bottom.
LEFT, RIGHT, TOP, BOTTOM = 52, 448, 14, 192


def parse(svg):
    return ElementTree.fromstring(svg)


def points(svg, kind):
    """Return the centres of the dots of a kind."""
    dots = [dot for dot in parse(svg).iter("circle") if kind in dot.get("class").split()]
    return [(float(dot.get("cx")), float(dot.get("cy"))) for dot in dots]


def path_of(svg):
    path = next(parse(svg).iter("path")).get("d")
    return [(pen, float(x), float(y)) for pen, x, y in re.findall(r"([ML])([\d.]+) ([\d.]+)", path)]


def test_places_run_from_corner_to_corner():
    axes = Axes((0.0, 10.0), (0.0, 100.0))
    assert axes.place(0, 0) == (LEFT, BOTTOM)
    assert axes.place(10, 100) == (RIGHT, TOP)
    assert axes.place(5, 50) == ((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2)


def test_a_curve_starts_at_zero_and_its_points_stand_at_their_times():
    values = np.array([100.0, 50.0, 75.0])
    svg = curve_chart([Line("LV", "c0", values, {1: 60.0})], "ml", 0.05, {"ED": 0, "ES": 1})
    # y runs from -8 to 108: 8 % more than 0 to 100 on both sides.
    up = [BOTTOM - (value + 8) / 116 * (BOTTOM - TOP) for value in (*values, 60.0)]
    across = [LEFT, (LEFT + RIGHT) / 2, RIGHT]
    for (pen, x, y), expected_pen, expected_x, expected_y in zip(path_of(svg), "MLL", across, up[:3], strict=True):
        assert pen == expected_pen
        assert (x, y) == pytest.approx((expected_x, expected_y), abs=0.06)
    assert points(svg, "truth") == [pytest.approx((across[1], up[3]), abs=0.06)]
    assert "expert, LV, frame 1: 60.0 ml" in svg and "time [ms]" in svg
    cursor = next(line for line in parse(svg).iter("line") if line.get("class") == "cursor")
    assert float(cursor.get("data-left")) == LEFT
    assert float(cursor.get("data-step")) == pytest.approx((RIGHT - LEFT) / 2)
    phases = [float(line.get("x1")) for line in parse(svg).iter("line") if line.get("class") == "phase"]
    assert phases == [LEFT, (LEFT + RIGHT) / 2]


def test_a_curve_can_be_read_aloud():
    svg = curve_chart([Line("LV", "c0", np.array([100.0, math.nan, 75.04]), {})], "ml", None, {})
    assert parse(svg).get("role") == "img"
    assert parse(svg).get("aria-label") == "Size over 3 frames: LV 75.0 to 100.0 ml"
    assert ">frame</text>" in svg


def test_a_curve_is_broken_where_nothing_is_known():
    svg = curve_chart([Line("LV", "c0", np.array([1.0, math.nan, 3.0, 4.0]), {})], "ml", None, {})
    assert [pen for pen, _, _ in path_of(svg)] == ["M", "M", "L"]


@pytest.mark.parametrize("values", [[5.0], [math.nan], [0.0], [math.nan, math.nan]])
def test_a_curve_of_next_to_nothing_is_a_chart(values):
    svg = curve_chart([Line("LV", "c0", np.array(values), {})], "ml", 0.03, {})
    assert parse(svg).tag == "svg"
    assert "nan" not in svg


def test_names_stay_text():
    name = "<img src=x onerror=alert(1)>\"'&"
    values = np.array([1.0, 2.0])
    for svg in (
        curve_chart([Line(name, "c0", values, {0: 1.0})], "ml", None, {name: 1}),
        scatter_chart(Pairs("EF [%]", [name, "b"], [0, 1], values, values)),
        bland_altman_chart(Pairs("EF [%]", [name, "b"], [0, 1], values, values)),
    ):
        assert "<img" not in svg
        assert any(name in (element.text or "") for element in parse(svg).iter())


PAIRS = Pairs("EF [%]", ["a", "b", "c"], [0, 2, 5], np.array([50.0, 60.0, 70.0]), np.array([52.0, 60.0, 65.0]))


def test_dots_of_a_scatter_plot_stand_at_their_values_and_know_their_studies():
    svg = scatter_chart(PAIRS)
    # Both axes from 50 to 70, 8 % wider on both sides.
    low, span = 50 - 1.6, 23.2
    expected = [
        (LEFT + (truth - low) / span * (RIGHT - LEFT), BOTTOM - (predicted - low) / span * (BOTTOM - TOP))
        for predicted, truth in zip(PAIRS.predicted, PAIRS.truth, strict=True)
    ]
    for found, place in zip(points(svg, "pair"), expected, strict=True):
        assert found == pytest.approx(place, abs=0.06)
    assert re.findall(r'data-study="(\d)"', svg) == ["0", "2", "5"]
    assert "b: prediction 60.0, expert 60.0" in svg


def test_a_bland_altman_plot_has_bias_and_limits_where_they_belong():
    svg = bland_altman_chart(PAIRS)
    differences = np.array([-2.0, 0.0, 5.0])
    bias, deviation = 1.0, float(differences.std(ddof=1))
    lower, upper = bias - 1.96 * deviation, bias + 1.96 * deviation
    low, high = lower - 0.08 * (upper - lower), upper + 0.08 * (upper - lower)
    lines = {kind: [] for kind in ("bias", "limit")}
    for line in parse(svg).iter("line"):
        if line.get("class") in lines:
            lines[line.get("class")].append(float(line.get("y1")))
    height = {value: BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP) for value in (bias, lower, upper)}
    assert lines["bias"] == pytest.approx([height[bias]], abs=0.06)
    assert lines["limit"] == pytest.approx([height[lower], height[upper]], abs=0.06)
    assert [x for x, _ in points(svg, "pair")] == sorted(x for x, _ in points(svg, "pair"))
    assert "bias +1.0" in svg


@pytest.mark.parametrize("value", [0.0, 55.0])
def test_studies_that_are_all_alike_are_a_chart(value):
    same = np.full(2, value)
    for chart in (scatter_chart, bland_altman_chart):
        assert "nan" not in chart(Pairs("EF [%]", ["a", "b"], [0, 1], same, same))
