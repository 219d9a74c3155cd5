"""DM-GAN's generator and the DAMSM text encoder that it is conditioned on, for inference.

Zhu, Pan, Chen and Yang 2019, "DM-GAN: Dynamic Memory Generative Adversarial Networks for Text-to-Image
Synthesis". Key for key the layout of the authors' checkpoints, so that theirs load strictly; every size is
read off the weights.
"""

from collections.abc import Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

BASE_PX = 64  # side of the first stage's image; each later stage doubles it

_COUNTER = ".num_batches_tracked"  # absent from files of torch before 0.4.1; of no use to inference


class DmganSizes(NamedTuple):
    """num_latent: length of z. num_condition: length of the condition drawn around the sentence.
    num_words: features of a word and of a sentence. num_features: channels before every image.
    num_stages: images of rising size, 64 px the first. num_res_blocks: in every stage but the first.
    """

    num_latent: int = 100
    num_condition: int = 100
    num_words: int = 256
    num_features: int = 64
    num_stages: int = 3
    num_res_blocks: int = 2


class _ConditionNet(nn.Module):
    """A sentence (B, num_words) to mean + eps * deviation of its Gaussian (B, num_condition)."""

    def __init__(self, sizes: DmganSizes) -> None:
        super().__init__()
        self.fc = nn.Linear(sizes.num_words, sizes.num_condition * 4)

    def forward(self, sentence: Tensor, eps: Tensor) -> Tensor:
        mean, log_variance = functional.glu(self.fc(sentence), dim=1).chunk(2, dim=1)
        return eps * (0.5 * log_variance).exp() + mean


class _FirstStage(nn.Module):
    """Condition and latent to features (B, nf, 64, 64): a dense layer onto 4x4 pixels, doubled four times."""

    def __init__(self, sizes: DmganSizes) -> None:
        super().__init__()
        width = 16 * sizes.num_features
        self.fc = nn.Sequential(
            nn.Linear(sizes.num_condition + sizes.num_latent, width * 32, bias=False),
            nn.BatchNorm1d(width * 32),
            nn.GLU(dim=1),
        )
        self.upsample1 = _up(width, width // 2)
        self.upsample2 = _up(width // 2, width // 4)
        self.upsample3 = _up(width // 4, width // 8)
        self.upsample4 = _up(width // 8, width // 16)

    def forward(self, latents: Tensor, condition: Tensor) -> Tensor:
        seeds: Tensor = self.fc(torch.cat([condition, latents], dim=1))
        quarter = self.upsample2(self.upsample1(seeds.view(len(seeds), -1, 4, 4)))
        features: Tensor = self.upsample4(self.upsample3(quarter))
        return features


class _ResBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *_conv_norm(width, 2 * width),
            nn.GLU(dim=1),
            *_conv_norm(width, width),
        )

    def forward(self, features: Tensor) -> Tensor:
        y: Tensor = self.block(features) + features
        return y


class _MemoryStage(nn.Module):
    """Features (B, nf, S, S) to (B, nf, 2S, 2S), refined by what the words say (the paper's section 3.1).

    Memory writing (eq. 8, 9), key addressing (10), value reading (11), response (12, 13), in its numbers.
    """

    def __init__(self, sizes: DmganSizes) -> None:
        super().__init__()
        nf = sizes.num_features
        self.A = nn.Linear(sizes.num_words, 1, bias=False)
        self.B = nn.Linear(nf, 1, bias=False)
        self.M_r = _pointwise(nf, 2 * nf)
        self.M_w = _pointwise(sizes.num_words, 2 * nf)
        self.key = _pointwise(2 * nf, nf)
        self.value = _pointwise(2 * nf, nf)
        self.response_gate = nn.Sequential(nn.Conv2d(2 * nf, 1, 1), nn.Sigmoid())
        self.residual = nn.Sequential(*(_ResBlock(2 * nf) for _ in range(sizes.num_res_blocks)))
        self.upsample = _up(2 * nf, nf)

    def forward(self, features: Tensor, words: Tensor, hidden: Tensor) -> Tensor:
        """words: (B, num_words, T). hidden: bool (B, S * S, T), the words a pixel does not see."""
        memory = self._write(features, words)
        response = _attend(features, self.key(memory), self.value(memory), hidden)
        gate = self.response_gate(torch.cat([features, response], dim=1))
        mixed = features * (1 - gate) + gate * response
        y: Tensor = self.upsample(self.residual(torch.cat([mixed, mixed], dim=1)))
        return y

    def _write(self, features: Tensor, words: Tensor) -> Tensor:  # (B, 2 nf, T)
        mean = functional.avg_pool2d(features, features.shape[-1]).squeeze(3)  # (B, nf, 1)
        of_words, of_image = self.A(words.transpose(1, 2)), self.B(mean.transpose(1, 2))
        gate = (of_words + of_image).sigmoid().transpose(1, 2)  # (B, 1, T)
        memory: Tensor = self.M_w(words) * gate + self.M_r(mean.repeat(1, 1, words.shape[2])) * (1 - gate)
        return memory


class _ToImage(nn.Module):
    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.img = nn.Sequential(nn.Conv2d(num_features, 3, 3, padding=1, bias=False), nn.Tanh())

    def forward(self, features: Tensor) -> Tensor:
        y: Tensor = self.img(features)
        return y


class DmganGenerator(nn.Module):
    """Latents, a sentence and its words to images (B, 3, S, S) in -1..1; S is 64, 128 or 256.

    fix_mask: the authors hide padding with a mask whose rows are repeated in another order than the
    attention's, so that pixel q of image b looks past the padding of caption (b * Q + q) mod B, where Q is
    the number of pixels: it misses words of its own caption, reads padding, and depends on its neighbours in
    the batch. False, the default, keeps that, for their weights were trained with it; True hides from every
    image its own padding. In a batch of one, or of captions of one length, the two are the same.
    """

    def __init__(self, sizes: DmganSizes, fix_mask: bool = False) -> None:
        super().__init__()
        self.sizes = sizes
        self.fix_mask = fix_mask
        self.ca_net = _ConditionNet(sizes)
        for stage in range(1, sizes.num_stages + 1):
            self.add_module(f"h_net{stage}", _FirstStage(sizes) if stage == 1 else _MemoryStage(sizes))
            self.add_module(f"img_net{stage}", _ToImage(sizes.num_features))

    def forward(
        self,
        latents: Tensor,
        eps: Tensor,
        sentences: Tensor,
        words: Tensor,
        is_padding: Tensor,
        image_px: int | None = None,
    ) -> Tensor:
        """The images of one size; later stages are not computed.

        latents: normal (B, num_latent). eps: normal (B, num_condition), draws the condition around the
        sentence, in the authors' evaluation too. sentences: (B, num_words). words: (B, num_words, T).
        is_padding: bool (B, T), False somewhere in every row. image_px: one of `sizes_px`, None: the largest.
        """
        num_stages = self.sizes.num_stages if image_px is None else self.sizes_px.index(image_px) + 1
        condition = self.ca_net(sentences, eps)
        features = self.get_submodule("h_net1")(latents, condition)
        for stage in range(2, num_stages + 1):
            hidden = _hidden_words(is_padding, features.shape[-1] ** 2, self.fix_mask)
            features = self.get_submodule(f"h_net{stage}")(features, words, hidden)
        images: Tensor = self.get_submodule(f"img_net{num_stages}")(features)
        return images

    @property
    def sizes_px(self) -> list[int]:
        """Sides of the images that it makes, one a stage."""
        return [BASE_PX * 2**stage for stage in range(self.sizes.num_stages)]

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], fix_mask: bool = False) -> Self:
        """The generator these weights belong to, loaded strictly, in eval mode.

        Old files lack the batch norms' counters of batches: these alone may be missing. Raises ValueError,
        naming what does not fit, for the weights of anything else.
        """
        with torch.device("meta"):
            generator = cls(sizes_of(state), fix_mask)
        counters = {name for name in generator.state_dict() if name.endswith(_COUNTER)}
        filled = {name: torch.tensor(0) for name in counters} | dict(state)
        _load_strictly(generator, filled)
        return generator.eval()


class TextEncoder(nn.Module):
    """The text half of AttnGAN's DAMSM (Xu et al., 2018): an embedding and a bidirectional LSTM.

    Its dropout plays no part in inference and has no weights.
    """

    def __init__(self, num_tokens: int, num_inputs: int = 300, num_hidden: int = 128) -> None:
        super().__init__()
        # Not drawn: torch.nn.Embedding's normal numbers take seconds of imports on the meta device.
        self.encoder = nn.Embedding.from_pretrained(torch.zeros(num_tokens, num_inputs), freeze=False)  # type: ignore[no-untyped-call]
        self.rnn = nn.LSTM(num_inputs, num_hidden, batch_first=True, bidirectional=True)

    @property
    def num_features(self) -> int:
        """Features of a word and of a sentence."""
        return 2 * self.rnn.hidden_size

    def forward(self, captions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Words (B, num_features, T), zero from each caption's length on, and sentences (B, num_features).

        captions: int64 (B, T or longer), padded. lengths: int64 (B,), from 1; T is the greatest.
        """
        embedded = self.encoder(captions)
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        output, (last, _) = self.rnn(packed)
        words, _ = pad_packed_sequence(output, batch_first=True)
        return words.transpose(1, 2), last.transpose(0, 1).flatten(1)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> Self:
        """The encoder these weights belong to, loaded strictly, in eval mode. Raises ValueError as above."""
        embedding, hidden = state.get("encoder.weight"), state.get("rnn.weight_hh_l0")
        if embedding is None or hidden is None or embedding.ndim != 2 or hidden.ndim != 2:
            raise ValueError("no matrices 'encoder.weight' and 'rnn.weight_hh_l0'")
        with torch.device("meta"):
            encoder = cls(embedding.shape[0], embedding.shape[1], hidden.shape[1])
        _load_strictly(encoder, state)
        encoder.rnn.flatten_parameters()
        return encoder.eval()


def sizes_of(state: Mapping[str, Tensor]) -> DmganSizes:
    """Read the sizes off the keys. Raises ValueError when these are not a DM-GAN generator's weights."""
    wanted = {"ca_net.fc.weight": 2, "h_net1.fc.0.weight": 2, "img_net1.img.0.weight": 4}
    missing = next((name for name, rank in wanted.items() if _rank(state.get(name)) != rank), None)
    if missing is not None:
        raise ValueError(f"no '{missing}' of {wanted[missing]} axes")
    condition, first, image = (state[name].shape for name in wanted)
    num_condition = condition[0] // 4
    num_res_blocks = sum(
        name.startswith("h_net2.residual.") and name.endswith(".block.0.weight") for name in state
    )
    return DmganSizes(
        num_latent=first[1] - num_condition,
        num_condition=num_condition,
        num_words=condition[1],
        num_features=image[1],
        num_stages=sum(name.startswith("img_net") for name in state),
        num_res_blocks=num_res_blocks,
    )


def _attend(queries: Tensor, keys: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
    """For every pixel of the queries (B, nf, S, S) the mean of the values (B, nf, T), softmax-weighted."""
    scores = torch.bmm(queries.flatten(2).transpose(1, 2), keys)  # (B, S * S, T)
    weights = scores.masked_fill(hidden, -torch.inf).softmax(dim=2)
    return torch.bmm(values, weights.transpose(1, 2)).view_as(queries)


def _hidden_words(is_padding: Tensor, num_pixels: int, fix_mask: bool) -> Tensor:
    """bool (B, num_pixels, T): the words that no attention may fall on; see `DmganGenerator`'s fix_mask."""
    if fix_mask:
        return is_padding[:, None].expand(-1, num_pixels, -1)
    return is_padding.repeat(num_pixels, 1).view(len(is_padding), num_pixels, -1)


def _load_strictly(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put the weights in the place of a network's on the meta device. Raises ValueError for a misfit."""
    try:
        network.load_state_dict({name: value.detach() for name, value in state.items()}, assign=True)
    except RuntimeError as error:
        raise ValueError(" ".join(str(error).split())[:200]) from error
    network.requires_grad_(False)


def _rank(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.ndim


def _conv_norm(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)]


def _up(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Upsample(scale_factor=2), *_conv_norm(before, 2 * after), nn.GLU(dim=1))


def _pointwise(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(before, after, 1), nn.ReLU())
