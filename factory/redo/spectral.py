"""Spectral normalisation under the names of the authors' checkpoints, self-attention, and the start values.

Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks"; Zhang et al. 2019,
"Self-Attention Generative Adversarial Networks".
"""

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

_EPS = 1e-12
_GAIN = 0.8  # METHOD: orthogonal start values, ReDO's supplement


class SpectralConv2d(nn.Module):
    """A convolution of stride 1 whose kernel is divided by its largest singular value, as estimated.

    In training every forward refines the estimate by one power iteration; ``weight_u`` and ``weight_v`` hold
    it. Keys: ``bias``, ``weight_orig``, ``weight_u``, ``weight_v``, those of torch's older ``spectral_norm``.
    All is 0 until `initialise` or a state dict sets it.
    """

    bias: nn.Parameter | None
    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, before: int, after: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__()
        self.register_parameter("bias", nn.Parameter(torch.zeros(after)) if bias else None)
        self.weight_orig = nn.Parameter(torch.zeros(after, before, kernel, kernel))
        self.register_buffer("weight_u", torch.zeros(after))
        self.register_buffer("weight_v", torch.zeros(before * kernel * kernel))
        self._padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.normalised(), self.bias, padding=self._padding)

    def normalised(self) -> Tensor:
        """The kernel over its spectral norm, always in full precision."""
        with torch.autocast(self.weight_orig.device.type, enabled=False):
            matrix = self.weight_orig.flatten(1)
            if self.training:
                self._refine(matrix)
            # Copies: the next forward refines the buffers in place, before this one's backward may have run.
            u, v = self.weight_u.clone(), self.weight_v.clone()
            return self.weight_orig / torch.dot(u, torch.mv(matrix, v))

    @torch.no_grad()
    def _refine(self, matrix: Tensor) -> None:
        functional.normalize(torch.mv(matrix.t(), self.weight_u), dim=0, eps=_EPS, out=self.weight_v)
        functional.normalize(torch.mv(matrix, self.weight_v), dim=0, eps=_EPS, out=self.weight_u)


class SelfAttention(nn.Module):
    """Every place (H * W) attends to the places of the map at half the side; starts as the identity."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        num_keys = max(num_features // 8, 1)
        self.gamma = nn.Parameter(torch.zeros(1))
        self.f = SpectralConv2d(num_features, num_keys, 1, bias=False)
        self.g = SpectralConv2d(num_features, num_keys, 1, bias=False)
        self.h = SpectralConv2d(num_features, num_features // 2, 1, bias=False)
        self.o = SpectralConv2d(num_features // 2, num_features, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        queries = self.f(x).flatten(2)  # (B, K, H * W)
        keys = functional.max_pool2d(self.g(x), 2).flatten(2)  # (B, K, H * W / 4)
        values = functional.max_pool2d(self.h(x), 2).flatten(2)  # (B, C / 2, H * W / 4)
        attention = (keys.transpose(1, 2) @ queries).softmax(dim=1)  # (B, H * W / 4, H * W)
        seen = (values @ attention).unflatten(2, x.shape[2:])
        y: Tensor = self.o(seen) * self.gamma + x
        return y


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Start values, in place: orthogonal kernels of gain 0.8, torch's own range for biases; u, v random.

    Drawn on the CPU, whose generator it is; the network may be anywhere.
    """
    redraw_kernels(network, generator)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | SpectralConv2d) and module.bias is not None:
                bound = 1 / sqrt(_kernel(module)[0].numel())
                module.bias.copy_(torch.empty(len(module.bias)).uniform_(-bound, bound, generator=generator))
            if isinstance(module, SpectralConv2d):
                for vector in (module.weight_u, module.weight_v):
                    drawn = torch.randn(len(vector), generator=generator)
                    vector.copy_(drawn / drawn.norm())
            elif isinstance(module, nn.InstanceNorm2d):
                module.reset_parameters()
            elif isinstance(module, SelfAttention):
                module.gamma.zero_()


@torch.no_grad()
def redraw_kernels(network: nn.Module, generator: torch.Generator) -> None:
    """New orthogonal kernels of gain 0.8, in place; all else stays."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | SpectralConv2d):
            kernel = _kernel(module)
            kernel.copy_(nn.init.orthogonal_(torch.empty(kernel.shape), _GAIN, generator=generator))


def _kernel(module: nn.Conv2d | nn.Linear | SpectralConv2d) -> Tensor:
    return module.weight_orig if isinstance(module, SpectralConv2d) else module.weight
