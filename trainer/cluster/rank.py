"""A rank's side: its place in the process group, and word between it and the driver."""

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from configs.errors import InputError
from shards.errors import ShardError
from trainer.cluster.config import ClusterConfig
from trainer.cluster.shared_losses import share
from trainer.training.ranks import Ranks
from trainer.training.stopping import Stopped

Work = Callable[[torch.device, Ranks], object]
Words = dict[int, Exception | str]

EVALUATION_S = 24 * 3600  # the first rank's pauses; Ray notices lost workers and nodes long before
_GATHER_S = 5.0  # in which all ranks tell an error that is all's


class Desk:
    """A Ray actor that passes word between the driver and the ranks."""

    def __init__(self) -> None:
        self._starts = 0
        self._words: Words = {}
        self._stop = asyncio.Event()

    async def news(self) -> tuple[int, Words]:
        """How often the ranks were started, and what each told: a user's error, or where it stopped."""
        return self._starts, self._words

    async def stop(self) -> None:
        """The driver was told to."""
        self._stop.set()

    async def stop_asked(self) -> None:
        """Returns when the driver was told to stop."""
        await self._stop.wait()

    async def begin(self, rank: int) -> bool:
        """Whether there is anything to begin: not after an error."""
        self._starts += rank == 0
        return not self._words

    async def tell(self, rank: int, world: int, word: Exception | str) -> bool:
        """Whether all ranks had something to tell within a while, so that none waits for another."""
        self._words[rank] = word
        for _ in range(20):
            if len(self._words) == world:
                return True
            await asyncio.sleep(_GATHER_S / 20)
        return len(self._words) == world


@dataclass(frozen=True, slots=True)
class Part:
    """What each worker calls."""

    work: Work
    mark: Path
    cwd: Path
    desk: Any
    threads: int
    config: ClusterConfig

    def __call__(self) -> None:
        import ray
        from ray.train import get_context

        rank, world = get_context().get_world_rank(), get_context().get_world_size()
        if not ray.get(self.desk.begin.remote(rank)):
            return
        try:
            self._check_folder()
            if self.cwd.is_dir():
                os.chdir(self.cwd)
            torch.set_num_threads(self.threads)
            device = _device(self.config)
            self.work(device, _ranks(rank, world, device, self.desk, self.config))
        except (Stopped, InputError, ShardError) as error:
            word = str(error) if isinstance(error, Stopped) else error  # Stopped does not go by pickle
            if not ray.get(self.desk.tell.remote(rank, world, word)):
                raise  # which ends the others, who wait for this rank

    def _check_folder(self) -> None:
        if not self.mark.exists():
            raise InputError(
                f"{self.mark.parent}: {socket.gethostname()} does not see it: wanted a run folder on storage "
                "that all nodes share"
            )


def _device(config: ClusterConfig) -> torch.device:
    """This worker's, which becomes the one that a plain ``cuda`` means."""
    from ray.train.torch import get_device

    if not config.gpus:
        return torch.device("cpu")
    device = get_device()
    torch.cuda.set_device(device)
    return device


def _ranks(rank: int, world: int, device: torch.device, desk: Any, config: ClusterConfig) -> Ranks:
    """This worker's place. Flags go by gloo also between GPUs, which need not wait for them."""
    group = None
    if device.type == "cuda":
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=EVALUATION_S))
    wish = desk.stop_asked.remote() if rank == 0 else None
    wrap = partial(share, sync_batch_norm=config.sync_batch_norm)
    return Ranks(rank, world, wrap, partial(_any_of, group=group, wish=wish))


def _any_of(flag: bool, group: Any, wish: Any) -> bool:
    """wish: what is ready when the driver was told to stop; the first rank has it."""
    import ray

    heard = wish is not None and bool(ray.wait([wish], timeout=0)[0])
    flags = torch.tensor([int(flag or heard)])
    dist.all_reduce(flags, dist.ReduceOp.MAX, group=group)
    return bool(flags.item())
