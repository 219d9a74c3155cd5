"""The DCGAN generator (Radford et al., 2016; PyTorch's example), sized by the weights it is given."""

from collections.abc import Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn


class DcganSizes(NamedTuple):
    """nz: length of the latent vector. ngf: channels before the last layer. nc: image channels.
    image_px: side of the square image, 8, 16, 32 and so on.
    """

    nz: int
    ngf: int
    nc: int
    image_px: int


class DcganGenerator(nn.Module):
    """Latent vectors (B, nz) to images (B, nc, S, S) in -1..1.

    A stack of 4x4 transposed convolutions, the first onto 4x4 pixels, each later one doubling the side and
    (but for the last) halving the channels; batch norm and ReLU between them, tanh at the end.
    """

    def __init__(self, sizes: DcganSizes) -> None:
        super().__init__()
        self.sizes = sizes
        num_doublings = (sizes.image_px // 4).bit_length() - 1
        widths = [sizes.ngf * 2**i for i in reversed(range(num_doublings))]
        layers: list[nn.Module] = []
        for before, after in zip([sizes.nz, *widths], widths, strict=False):
            stride, padding = (2, 1) if layers else (1, 0)
            layers += [
                nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.ConvTranspose2d(sizes.ngf, sizes.nc, 4, 2, 1, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:  # (B, nz) -> (B, nc, S, S)
        images: Tensor = self.main(latents[:, :, None, None])
        return images

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> Self:
        """The generator these weights belong to, loaded strictly, in eval mode.

        Raises ValueError, naming what does not fit, for the weights of anything else.
        """
        generator = cls(sizes_of(state))
        try:
            generator.load_state_dict(state, strict=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(reason[:200]) from error
        return generator.eval()


def sizes_of(state: Mapping[str, Tensor]) -> DcganSizes:
    """Read the sizes off ``main.N.weight``. Raises ValueError when these are no DCGAN generator's weights."""
    kernels = [tensor for name, tensor in state.items() if name.startswith("main.") and tensor.ndim == 4]
    if len(kernels) < 2 or any(kernel.shape[2:] != (4, 4) for kernel in kernels):
        raise ValueError("no stack of 4x4 kernels named main.N.weight")
    return DcganSizes(
        nz=kernels[0].shape[0],
        ngf=kernels[-1].shape[0],
        nc=kernels[-1].shape[1],
        image_px=4 * 2 ** (len(kernels) - 1),
    )


def to_uint8(images: Tensor) -> Tensor:  # (B, nc, S, S) -> (B, S, S, 3)
    """Images in -1..1 as uint8 RGB, channels last; a single grey channel is repeated."""
    scaled = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous()
