"""Three forms of one recurrence against a plain loop over batch, head and frame, values and gradients."""

import pytest
import torch

from nnunet_temporal.networks.linear_recurrence import CHUNK, RECURRENCES, scan_recurrence

B, H, K, V = 2, 3, 4, 5


def recurrence_inputs(frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (B, frames, H, K, K), (B, frames, H, V, K), (B, H, V, K)
    transition, write, state = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return transition / 2, write, state


def reference_recurrence(transition, write, state):
    states = torch.empty_like(write)
    for b in range(write.shape[0]):
        for h in range(write.shape[2]):
            current = state[b, h]
            for t in range(write.shape[1]):
                current = current @ transition[b, t, h] + write[b, t, h]
                states[b, t, h] = current
    return states


def values_and_gradients(function, inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    states = function(*leaves)
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(9), dtype=states.dtype)
    return states.detach(), torch.autograd.grad((states * weights).sum(), leaves)


@pytest.mark.parametrize("frames", [1, 2, 3, 7, CHUNK, CHUNK + 1, 2 * CHUNK + 5])
@pytest.mark.parametrize("form", RECURRENCES)
def test_every_form_equals_the_plain_loop_in_values_and_gradients(form, frames):
    inputs = recurrence_inputs(frames)
    expected = values_and_gradients(reference_recurrence, inputs)
    torch.testing.assert_close(values_and_gradients(RECURRENCES[form], inputs), expected)


@pytest.mark.parametrize("form", RECURRENCES)
def test_every_gradient_of_a_form_agrees_with_finite_differences(form):
    transition, write, state = recurrence_inputs(5)
    leaves = [x[:1].clone().requires_grad_() for x in (transition[:, :, :1], write[:, :, :1], state[:, :1])]
    assert torch.autograd.gradcheck(RECURRENCES[form], leaves)


@pytest.mark.parametrize("form", RECURRENCES)
def test_a_form_leaves_its_inputs_as_they_are(form):
    inputs = recurrence_inputs(6)
    RECURRENCES[form](*inputs)
    assert all(torch.equal(x, fresh) for x, fresh in zip(inputs, recurrence_inputs(6), strict=True))


def test_the_scan_takes_log2_of_the_frames_as_steps():
    with torch.profiler.profile(record_shapes=False) as profile:
        scan_recurrence(*recurrence_inputs(64))
    products = sum(event.count for event in profile.key_averages() if event.key == "aten::matmul")
    # One for the first frame's state, then two for each of six steps.
    assert products == 1 + 2 * 6
