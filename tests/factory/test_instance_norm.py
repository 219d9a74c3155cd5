"""Instance norm with channels last."""

import pytest
import torch
from torch import nn

from factory.instance_norm import InstanceNorm, instance_norm


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("count", [1, 3])
def test_it_is_that_of_torch_in_value_gradient_and_order(order: torch.memory_format, count: int) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(count, 4, 5, 6, generator=rng, dtype=torch.float64).contiguous(memory_format=order)
    ours, wanted = InstanceNorm(4).double(), nn.InstanceNorm2d(4, affine=True).double()
    nn.init.normal_(wanted.weight, generator=rng)
    nn.init.normal_(wanted.bias, generator=rng)
    ours.load_state_dict(wanted.state_dict())
    found, right = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours(found).square().sum().backward()
    wanted(right).square().sum().backward()
    torch.testing.assert_close(ours(found), wanted(right))
    torch.testing.assert_close(found.grad, right.grad)
    torch.testing.assert_close(ours.weight.grad, wanted.weight.grad)
    assert ours(found).is_contiguous(memory_format=order)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_each_sample_has_a_scale_and_a_shift_of_its_own(order: torch.memory_format) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 8, 8, generator=rng).contiguous(memory_format=order)
    scales, shifts = torch.tensor([[1.0, 2, 3], [4, 5, 6]]), torch.tensor([[0.0, 1, 2], [3, 4, 5]])
    y = instance_norm(x, scales, shifts)
    torch.testing.assert_close(y.mean(dim=(2, 3)), shifts)
    torch.testing.assert_close(y.std(dim=(2, 3), correction=0), scales, rtol=1e-3, atol=0)
