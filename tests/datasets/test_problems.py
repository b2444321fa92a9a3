import pytest

from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.errors import InputError


def halve(number):
    if number % 2:
        raise InputError(f"{number} is odd")
    return number // 2


def test_results_keep_their_order():
    assert apply_to_all([4, 2, 8], halve) == [2, 1, 4]


def test_all_bad_items_are_in_one_message():
    with pytest.raises(InputError) as error:
        apply_to_all([1, 2, 3], halve)
    assert "2 inputs" in str(error.value) and "1 is odd" in str(error.value) and "3 is odd" in str(error.value)


def test_a_single_problem_is_passed_on_as_it_is():
    with pytest.raises(InputError, match=r"^3 is odd$"):
        apply_to_all([2, 3], halve)
