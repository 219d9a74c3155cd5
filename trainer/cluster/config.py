"""Who trains: this process, or workers of a Ray cluster."""

import socket
from importlib.util import find_spec

import torch
from pydantic import Field

from configs.errors import InputError
from configs.kinds import StrictModel

_CONNECT_S = 10.0


class ClusterConfig(StrictModel):
    """Who trains. One worker is this process, without Ray.

    workers: processes that share every batch. Their number changes the weights a little: losses are divided
    by the objects, and batch norms see the images, of one worker's part, as of one part with ``accumulate``.
    address: ``local`` (this machine), ``auto`` (the cluster it is in) or another cluster's HOST:PORT.
    gpus_per_worker: default 1 where this machine has GPUs, else 0. cpus_per_worker: its threads, too, unless
    ``threads`` says otherwise.
    max_failures: lost workers, or errors that may pass, after which a training is given up.
    sync_batch_norm: statistics of the whole batch; wants GPUs. Elsewhere ``freeze.batch_norm`` makes them
    equal on all workers.
    """

    workers: int = Field(default=1, ge=1)
    address: str = Field(default="local", min_length=1)
    gpus_per_worker: float | None = Field(default=None, ge=0)
    cpus_per_worker: int = Field(default=1, ge=1)
    max_failures: int = Field(default=3, ge=0)
    sync_batch_norm: bool = False

    @property
    def gpus(self) -> float:
        """Of each worker."""
        return float(torch.cuda.is_available()) if self.gpus_per_worker is None else self.gpus_per_worker

    @property
    def device_type(self) -> str:
        """Where the training computes."""
        return "cuda" if self.gpus and (self.workers > 1 or torch.cuda.is_available()) else "cpu"

    def check(self) -> None:
        """Raises InputError when Ray Train is not installed, nothing listens at the address, or GPUs lack."""
        if self.workers == 1:
            return
        lacking = [name for name in ("pandas", "pyarrow", "tensorboardX") if find_spec(name) is None]
        if lacking:
            raise InputError(
                f"cluster.workers: found {self.workers}, which wants {', '.join(lacking)}: "
                "pip install 'crop-foundry[cluster]'"
            )
        if self.sync_batch_norm and not self.gpus:
            raise InputError(
                "cluster.sync_batch_norm: found true, which wants GPUs: wanted false, or freeze.batch_norm"
            )
        check_address(self.address)


def check_address(address: str) -> None:
    """Ray itself would wait for minutes for a HOST:PORT where nothing listens."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "://" in address:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"cluster.address {address}: {error}: wanted local or a running cluster") from error
