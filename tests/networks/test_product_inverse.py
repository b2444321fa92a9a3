"""The inverse by matrix products is that of a solver, up to the worst condition that the gates allow."""

import pytest
import torch

from nnunet_temporal.networks.gated_delta import GatedDeltaMemory
from nnunet_temporal.networks.memory_ops import LARGEST_WRITE_GATE, implicit_transition, moments, unit_norm
from nnunet_temporal.networks.memory_rules import GATE_SOURCES, MODES, MemoryRule, mean_per_direction
from nnunet_temporal.networks.product_inverse import inverse_by_products

PIXELS = 400
SPREADS = {"random": None, "rank 1": 0.0, "collinear to 1e-1": 1e-1, "to 1e-2": 1e-2, "to 1e-4": 1e-4}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def update(key_size, spread, dtype=torch.float64):
    """Return I + c A of the implicit update for keys around one direction, with the strongest write gate."""
    keys = noise(key_size, PIXELS)
    if spread is not None:
        keys = noise(key_size, 1, seed=1) + spread * keys
    moment, _ = moments(unit_norm(keys), keys, mean_per_direction(key_size, PIXELS))
    return (torch.eye(key_size) + LARGEST_WRITE_GATE / (1 - LARGEST_WRITE_GATE) * moment).to(dtype)


def relative_error(inverse, matrix):
    solved = torch.linalg.solve(matrix.double(), torch.eye(len(matrix), dtype=torch.float64))
    return float((inverse - solved).norm() / solved.norm())


@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS)
@pytest.mark.parametrize("key_size", [4, 16, 32, 64, 128])
def test_it_is_the_inverse_of_a_solver(key_size, spread):
    matrix = update(key_size, spread)
    assert relative_error(inverse_by_products(matrix), matrix) < 1e-9
    # One rounding to float32 is all that is lost; a solver in float32 loses some hundred times as much.
    rounded = matrix.float()
    assert relative_error(inverse_by_products(rounded), rounded) < 1e-7


def test_the_worst_gates_come_to_the_condition_that_the_docstring_says():
    assert torch.linalg.cond(update(32, 0.0)).item() == pytest.approx(1 + 99 * 32, rel=1e-3)


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e5])
def test_any_spectrum_up_to_the_largest_condition_is_inverted(condition):
    directions, _ = torch.linalg.qr(noise(8, 8))
    matrix = directions * torch.logspace(0, torch.tensor(condition).log10().item(), 8, dtype=torch.float64)
    matrix = matrix @ directions.T
    assert relative_error(inverse_by_products(matrix), matrix) < 1e-9


def test_beyond_that_condition_it_is_off():
    # Fewer steps than there are would fail the test above: this one shows that there are not many to spare.
    matrix = torch.diag(torch.tensor([1.0, 1e7], dtype=torch.float64))
    assert relative_error(inverse_by_products(matrix), matrix) > 1e-3


def test_matrices_of_a_batch_do_not_see_each_other():
    matrices = torch.stack([update(16, spread) for spread in (None, 0.0, 1e-2)])
    together = inverse_by_products(matrices.view(3, 1, 16, 16)).view(3, 16, 16)
    for matrix, inverse in zip(matrices, together, strict=True):
        torch.testing.assert_close(inverse, inverse_by_products(matrix))


def test_the_implicit_update_is_the_same_either_way():
    keys, values, gates = noise(2, 3, 8, 20), noise(2, 3, 5, 20, seed=1), torch.rand(2, 3, 8, dtype=torch.float64)
    arguments = (*moments(unit_norm(keys), values, 8 / 20), gates, gates.sqrt())
    solved = implicit_transition(*arguments)
    torch.testing.assert_close(implicit_transition(*arguments, inverse_by_products), solved)


@pytest.mark.parametrize("gate_source", GATE_SOURCES)
@pytest.mark.parametrize("mode", MODES)
def test_a_memory_without_a_solver_answers_the_same(mode, gate_source):
    torch.manual_seed(0)
    rule = MemoryRule(mode, gate_source=gate_source)
    memory = GatedDeltaMemory(8, heads=2, key_size=4, value_size=4, rule=rule)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    features = noise(1, 6, 8, 1, 1, seed=2).float()  # one pixel, where the published rule is stable too
    expected, _ = memory(features)
    memory.invert_by_products()
    torch.testing.assert_close(memory(features)[0], expected)
    assert ("inverse_by_products" in str(memory.transition)) == (mode == "implicit")
