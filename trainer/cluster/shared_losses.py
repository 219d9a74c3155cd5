"""Losses of a batch that the ranks of torch's process group share."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def share(module: nn.Module, sync_batch_norm: bool = False) -> nn.Module:
    """The module, which takes a Batch and returns named losses, as one rank's part of all ranks' module.

    On the processor its gradients' sums have the same order in every step: DistributedDataParallel would
    build its buckets anew after the first step, and going on after a checkpoint would not be exact.
    """
    if sync_batch_norm:
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    on_cpu = next(module.parameters()).device.type == "cpu"
    return _SharedLosses(module, find_unused_parameters=on_cpu)


class _SharedLosses(DistributedDataParallel):
    """Losses show the mean of all ranks; the gradient is the rank's own, until they are averaged.

    Where the mean is not finite each rank keeps its own losses, so that an error names the images at fault.
    """

    def forward(self, *inputs: Any, **named: Any) -> dict[str, Tensor]:
        """The named losses."""
        losses: dict[str, Tensor] = super().forward(*inputs, **named)  # type: ignore[no-untyped-call]
        own = torch.stack([value.detach().float() for value in losses.values()])
        mean = own.clone()
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
        shown = torch.where(mean.isfinite(), mean - own, 0.0)
        return {name: value + more for (name, value), more in zip(losses.items(), shown, strict=True)}
