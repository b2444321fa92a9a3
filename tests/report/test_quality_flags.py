"""What is flagged, with its numbers, and what is not."""

import numpy as np
import pytest
from mask_folders import LV, MYO, SCHEME
from segmented_hearts import beating, ring, segmented

from nnunet_temporal.report.curves import measure_curves
from nnunet_temporal.report.quality_flags import FEWEST_PIXELS, flag_study, jumps_of
from nnunet_temporal.report.segmented_study import SegmentedStudy
from nnunet_temporal.report.study_figures import measure_study_figures

STILL = np.stack([ring(4)] * 4)


def flags_of(masks, confidence=None, **fields):
    stack = segmented(masks, **fields)
    figures = measure_study_figures(SegmentedStudy("s", (stack,)), [measure_curves(stack, SCHEME)], SCHEME)
    return flag_study([stack], [confidence], figures, SCHEME)


def named(flags, title):
    return [flag for flag in flags if flag.title == title]


def test_a_steady_closed_heart_has_no_flags():
    assert flags_of(STILL) == []


def test_jumps_are_distances_to_the_mean_of_the_neighbours():
    areas = np.array([10.0, 20.0, 12.0, 10.0])
    # Frame 0 follows frame 3 in a cycle: 10 - (10 + 20) / 2, 20 - 11, 12 - 15, 10 - 11.
    assert jumps_of(areas, cyclic=True).tolist() == [-5, 9, -3, -1]
    assert jumps_of(areas, cyclic=False).tolist() == [0, 9, -3, 0]
    assert jumps_of(areas[:2], cyclic=True).tolist() == [0, 0]


def test_a_frame_that_jumps_flickers_and_is_named():
    masks = STILL.copy()
    masks[2] = ring(3)
    # Cavities of 64, 64, 36, 64 pixels: 14 for the neighbours is below the fewest pixels, 28 is 44 % of 64.
    (flag,) = named(flags_of(masks), "flicker")
    assert flag.frames == (2,)
    assert (flag.stack, flag.slice) == (0, 0)
    assert flag.detail == "the area of LV jumps by up to 44 % against its neighbours"


def test_a_wall_with_a_gap_is_a_broken_ring_and_a_narrow_gap_is_not():
    masks = STILL.copy()
    narrow, wide = (ring(4) for _ in range(2))
    for labels, gap in ((narrow, 4), (wide, 8)):
        labels[8 : 8 + gap, 16:18] = 0
    masks[1], masks[2] = narrow, wide
    # 8 of the 32 pixel edges around the cavity are open, and 4 are no more than the limit allows.
    (flag,) = named(flags_of(masks[:, None]), "broken ring")
    assert flag.frames == (2,)
    assert "up to 25 %" in flag.detail


def test_only_slices_of_a_stack_are_rings_for_a_long_axis_is_open_at_its_base():
    masks = STILL.copy()
    masks[:, 8:16, 16:18] = 0
    assert named(flags_of(masks[:, None]), "broken ring")
    assert not named(flags_of(masks, view="4CH"), "broken ring")


def test_parts_are_counted_from_a_certain_size():
    masks = STILL.copy()
    masks[1, 0:5, 0:4] = LV
    masks[2, 0:5, 0:4] = LV
    masks[2, 0, 0] = 0
    (flag,) = named(flags_of(masks), "several parts")
    assert FEWEST_PIXELS == 20
    assert (flag.frames, flag.detail) == ((1,), "LV has more than one part")


def test_frames_that_the_model_was_not_sure_of():
    confidence = np.array([[0.9], [0.55], [np.nan], [0.79]])
    (flag,) = flags_of(STILL, confidence)
    assert flag.title == "low confidence"
    assert (flag.frames, flag.detail) == ((1, 3), "down to 0.55, below 0.85")


def test_an_implausible_ejection_fraction_is_one_of_the_whole_study():
    # 100 and 4 pixels: 96 %.
    flags = flags_of(beating((5, 4, 1, 4)), slice_spacing_mm=10.0, pixel_mm=(4.0, 4.0))
    (flag,) = named(flags, "implausible ejection fraction")
    assert flag.detail == "96 %, usual are 5 to 80 %"
    assert (flag.stack, flag.slice, flag.frames) == (None, None, ())


def test_a_small_heart_has_an_implausible_volume_and_an_area_has_none():
    (flag,) = named(flags_of(beating(), slice_spacing_mm=10.0), "implausible EDV")
    assert flag.detail == "2 ml, usual are 30 to 450 ml"
    assert not named(flags_of(beating()), "implausible EDV")


def test_a_wall_that_grows_changes_its_mass():
    masks = beating((4, 4, 4, 4))
    masks[2:][masks[2:] == MYO] = 0
    masks[2:, :, 7, 7:17] = MYO
    assert "wall mass changes" in {flag.title for flag in flags_of(masks, slice_spacing_mm=10.0)}


@pytest.mark.parametrize("frames", [1, 2])
def test_few_frames_and_empty_ones_raise_nothing(frames):
    assert flags_of(np.zeros_like(STILL[:frames])) == []
    assert flags_of(STILL[:frames]) == []
