"""Each rule about temporal modules: its value for ordinary and for odd data, and the line that explains it."""

import itertools

import pytest

from nnunet_temporal.planners import module_rules
from nnunet_temporal.planners.module_rules import MemorySize
from nnunet_temporal.planners.rules import ClipPlan, Span

STRIDES_256 = [(1, 1), (2, 2), (2, 2), (2, 2), (2, 2), (2, 2), (2, 2)]
BEAT_OF_25 = Span(25.0, closes=True)


def wall_moves(displacement_mm) -> dict:
    """Return a fingerprint's entry ``temporal``, as far as these rules read it."""
    return {"labelled_movies": {"displacement_mm": displacement_mm}}


def memory_stages(patch_size, strides):
    """Plan the memory stages of a network."""
    return module_rules.plan_memory_stages(module_rules.feature_map_sizes(patch_size, strides))


def test_the_memory_sits_at_the_deepest_stage_with_twelve_pixels():
    choice = memory_stages((256, 256), STRIDES_256)
    assert choice.value == (4,)
    assert choice.reason == "Memory at encoder stage 4 (feature map 16x16)."


def test_the_short_side_of_an_elongated_patch_decides_about_the_memory():
    strides = [(1, 1), (2, 2), (2, 2), (2, 2), (2, 1)]
    assert memory_stages((256, 96), strides).value == (4,)
    assert memory_stages((256, 64), strides).value == (2,)


def test_full_resolution_never_gets_a_memory():
    assert memory_stages((24, 24), [(1, 1), (2, 2), (2, 2)]).value == (1,)


def test_a_tiny_patch_gets_its_memory_at_the_bottleneck():
    choice = memory_stages((8, 8), [(1, 1), (2, 2)])
    assert choice.value == (1,)
    assert choice.reason == "Memory at encoder stage 1 (feature map 4x4)."


@pytest.mark.parametrize(("narrowest", "size"), [(16, 16), (128, 16), (256, 32), (512, 64), (1024, 64)])
def test_memory_keys_follow_the_narrowest_features_within_bounds(narrowest, size):
    choice = module_rules.plan_memory_size([2048, narrowest])
    assert choice.value == MemorySize(heads=4, key_size=size, value_size=size)
    assert choice.reason == f"4 memory heads with keys and values of {size} channels."


def test_the_size_of_a_memory_is_a_plain_integer():
    assert type(module_rules.plan_memory_size([100]).value.key_size) is int


@pytest.mark.parametrize(
    ("size", "patch"),
    [
        ((24, 24), 6),
        ((16, 16), 4),
        ((8, 8), 2),
        ((28, 32), 8),
        ((20, 16), 4),
        ((4, 4), 2),
        ((9, 11), 2),
        ((12, 14), 4),
        ((48, 64), 16),
    ],
)
def test_matching_patches_are_about_a_quarter_of_the_field_of_view(size, patch):
    choice = module_rules.plan_matching_patch(size)
    assert choice.value == patch
    assert all((side - patch) % (patch // 2) == 0 for side in size)


def test_matching_patches_reach_the_border_of_every_feature_map():
    for size in itertools.product(range(2, 40), repeat=2):
        patch = module_rules.plan_matching_patch(size).value
        assert patch % 2 == 0 and all((side - patch) % (patch // 2) == 0 for side in size)


@pytest.mark.parametrize(("moved", "side"), [(None, 3), (6.0, 3), (15.0, 5), (500.0, 7)])
def test_neighbourhoods_reach_as_far_as_walls_move(moved, side):
    choice = module_rules.plan_neighbourhood(wall_moves(moved), ClipPlan(4, 2, 6), BEAT_OF_25, cell_mm=5.0)
    assert choice.value == (3, side, side)


@pytest.mark.parametrize(("clip_length", "extent"), [(1, 1), (2, 1), (3, 3), (12, 3)])
def test_a_neighbourhood_has_a_frame_on_either_side_where_clips_do(clip_length, extent):
    assert (
        module_rules.plan_neighbourhood(wall_moves(None), ClipPlan(clip_length, 1, 1), BEAT_OF_25, 5.0).value[0]
        == extent
    )


def test_neighbourhoods_say_that_motion_is_unknown():
    choice = module_rules.plan_neighbourhood(wall_moves(None), ClipPlan(4, 2, 6), BEAT_OF_25, cell_mm=10.0)
    assert "how far walls move is not measured" in choice.reason
