"""The teacher: a running average that forgets the start soon, and that nothing else can change."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunet_temporal.training.teacher import Teacher


def student(norm=nn.InstanceNorm2d):
    torch.manual_seed(0)
    return PlainConvUNet(
        1, 3, (4, 6, 8), nn.Conv2d, 3, (1, 2, 2), 1, 2, 1, conv_bias=True, norm_op=norm,
        norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU, deep_supervision=True,
    )  # fmt: skip


def change(network, seed):
    """Move all weights of a network, as a step does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)


def weights(network):
    return [parameter.detach().double().clone() for parameter in network.parameters()]


def test_it_starts_as_a_copy_that_evaluates_at_one_scale_and_has_no_gradients():
    network = student()
    teacher = Teacher(network, 0.99)
    frames = torch.rand(1, 1, 16, 16)
    assert torch.equal(teacher.network(frames), network.eval()(frames)[0])
    assert not teacher.network.training
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    assert network.decoder.deep_supervision and all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_the_average_is_that_of_a_loop_and_short_in_the_beginning(decay):
    network = student()
    teacher, expected = Teacher(network, decay), weights(network)
    for n in range(20):
        change(network, n)
        teacher.update(network)
        kept = min(decay, (1 + n) / (10 + n))
        expected = [kept * e + (1 - kept) * w for e, w in zip(expected, weights(network), strict=True)]
    assert teacher.updates == 20
    for average, right in zip(weights(teacher.network), expected, strict=True):
        torch.testing.assert_close(average, right, rtol=1e-4, atol=1e-5)


def test_the_random_start_is_soon_forgotten():
    network = student()
    teacher, start = Teacher(network, 0.99), weights(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 1
    for _ in range(10):
        teacher.update(network)
    left = max(
        float((after - before - 1).abs().max()) for after, before in zip(weights(teacher.network), start, strict=True)
    )
    # With the full decay from the start nine tenths would be left.
    assert left < 0.001


def test_buffers_are_taken_over():
    network = student(nn.BatchNorm2d)
    teacher = Teacher(network, 0.99)
    network.train()(torch.rand(2, 1, 16, 16))
    teacher.update(network)
    pairs = list(zip(teacher.network.buffers(), network.buffers(), strict=True))
    assert pairs and all(torch.equal(kept, buffer) and kept is not buffer for kept, buffer in pairs)


def test_an_update_does_not_touch_the_student():
    network = student()
    teacher = Teacher(network, 0.5)
    change(network, 1)
    before = weights(network)
    teacher.update(network)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(network), strict=True))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_compiled_student_has_a_plain_teacher():
    network = student()
    compiled = torch.compile(network, backend="eager")
    teacher = Teacher(compiled, 0.5)
    assert type(teacher.network) is PlainConvUNet
    change(network, 1)
    other = Teacher(student(), 0.5)
    for each, source in ((teacher, compiled), (other, network)):
        each.update(source)
    assert all(torch.equal(a, b) for a, b in zip(weights(teacher.network), weights(other.network), strict=True))


def test_the_state_is_taken_over_whole():
    network = student()
    teacher, other = Teacher(network, 0.9), Teacher(student(), 0.9)
    for n in range(3):
        change(network, n)
        teacher.update(network)
    other.load_state_dict(teacher.state_dict())
    for each in (teacher, other):
        each.update(network)
    assert other.updates == 4
    assert all(torch.equal(a, b) for a, b in zip(weights(teacher.network), weights(other.network), strict=True))


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.1])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\)"):
        Teacher(student(), decay)
