"""The four networks of a ReDO training and their optimisers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from factory.redo.discriminator import Discriminator, LatentRecovery
from factory.redo.mask_network import MaskNetwork
from factory.redo.region_generator import RegionGenerators
from factory.redo.settings import NetworksConfig, RedoTraining
from factory.redo.spectral import initialise

_BETAS = (0.0, 0.9)

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class RedoNetworks:
    """masks: f. regions: G. discriminator: D. recovery: delta, which reads the latents back."""

    masks: MaskNetwork
    regions: RegionGenerators
    discriminator: Discriminator
    recovery: LatentRecovery

    def items(self) -> list[tuple[str, nn.Module]]:
        """The networks under the names of the authors' checkpoints."""
        return [
            ("netEncM", self.masks),
            ("netGenX", self.regions),
            ("netDX", self.discriminator),
            ("netRecZ", self.recovery),
        ]

    def state(self) -> dict[str, dict[str, Tensor]]:
        return {name: network.state_dict() for name, network in self.items()}

    def load(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Strictly. Raises RuntimeError, as torch does, for the weights of anything else."""
        for name, network in self.items():
            network.load_state_dict(state[name], strict=True)

    def train(self, *, training: bool = True) -> None:
        for _, network in self.items():
            network.train(training)


def make_networks(sizes: NetworksConfig, image_size: int) -> RedoNetworks:
    """All four, without start values."""
    n, latent = sizes.num_regions, sizes.latent_size
    return RedoNetworks(
        make_mask_network(sizes, image_size),
        RegionGenerators(
            sizes.generator_features, latent, n, image_size, attention=sizes.generator_attention
        ),
        Discriminator(sizes.discriminator_features, image_size, attention=sizes.discriminator_attention),
        LatentRecovery(sizes.recovery_features, latent, n, image_size),
    )


def make_mask_network(sizes: NetworksConfig, image_size: int) -> MaskNetwork:
    """The mask network alone, without start values."""
    return MaskNetwork(
        sizes.mask_features, sizes.mask_res_blocks, sizes.num_regions, image_size, sizes.temperature
    )


def started(network: Network, *key: int) -> Network:
    """The network with start values that are a function of ``key``, in place."""
    initialise(network, generator_of(*key))
    return network


def placed(network: Network, device: torch.device) -> Network:
    """The network on its device, in place; channels last, which spares a sixth of a step on a CPU."""
    moved: Network = network.to(device).to(memory_format=torch.channels_last)
    return moved


def generator_of(*key: int) -> torch.Generator:
    """A generator of its own for every key of numbers from 0."""
    (seed,) = np.random.SeedSequence(list(key)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(seed >> np.uint64(1)))


def make_optimisers(networks: RedoNetworks, config: RedoTraining) -> dict[str, torch.optim.Adam]:
    """One Adam a network, under the authors' names."""
    rates = config.optimiser
    return {
        "optimizerEncM": torch.optim.Adam(
            networks.masks.parameters(), rates.mask_lr, _BETAS, weight_decay=rates.mask_weight_decay
        ),
        "optimizerGenX": torch.optim.Adam(networks.regions.parameters(), rates.generator_lr, _BETAS),
        "optimizerDX": torch.optim.Adam(networks.discriminator.parameters(), rates.discriminator_lr, _BETAS),
        "optimizerRecZ": torch.optim.Adam(networks.recovery.parameters(), rates.recovery_lr, _BETAS),
    }
