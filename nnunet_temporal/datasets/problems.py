"""One report for many bad files: a folder of hundreds is checked once, not mended error by error."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from nnunet_temporal.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def apply_to_all(items: Iterable[Item], action: Callable[[Item], Result]) -> list[Result]:
    """Apply ``action`` to every item, also after failures, and report all bad items at once.

    Args:
        items: What to go through, in order.
        action: Called with each item; raises InputError for a bad one.

    Returns:
        The results in the order of ``items``; empty for no items.

    Raises:
        InputError: One or more items were bad; the message holds every message, one per line.
    """
    results, faults = try_all(items, action)
    raise_problems([problem for _, problem in faults])
    return results


def try_all(items: Iterable[Item], action: Callable[[Item], Result]) -> tuple[list[Result], list[tuple[Item, str]]]:
    """Apply ``action`` to every item, also after failures.

    Args:
        items: What to go through, in order.
        action: Called with each item; raises InputError for a bad one.

    Returns:
        The results of the good items, and the bad ones, each with what is wrong with it.
    """
    results, faults = [], []
    for item in items:
        try:
            results.append(action(item))
        except InputError as error:
            faults.append((item, str(error)))
    return results, faults


def raise_problems(problems: list[str]) -> None:
    """Report all problems at once.

    Raises:
        InputError: There is at least one.
    """
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        raise InputError("\n  - ".join([f"{len(problems)} inputs cannot be used:", *problems]))


def listed(names: Sequence[str], at_most: int) -> str:
    """Join names by commas; those beyond ``at_most`` are only counted."""
    unnamed = len(names) - at_most
    return ", ".join(names[:at_most]) + (f" and {unnamed} more" if unnamed > 0 else "")
