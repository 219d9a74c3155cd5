"""Object images from DM-GAN: an endless row, one caption and one latent vector a slot."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from configs.errors import InputError
from factory.generators.captions import WANTED as WANTED_VOCABULARY
from factory.generators.captions import Caption, Vocabulary, padded, read_vocabulary, shorten
from factory.generators.dcgan import to_uint8
from factory.generators.dmgan import DmganGenerator, TextEncoder
from factory.generators.dmgan_files import (
    WANTED_GENERATOR,
    WANTED_TEXT_ENCODER,
    load_generator,
    load_text_encoder,
)
from factory.generators.rows import aligned_slots
from factory.stages import ObjectImage, Scalar, SourceConfig, UInt8Array
from factory.weights import find_weights, sha256_of

_FROM = "from the links in github.com/MinfengZhu/DM-GAN's README"


class DmganConfig(SourceConfig):
    """A trained DM-GAN, drawing what captions say.

    weights: the generator's state dict. text_encoder: DAMSM's, that it was trained with. vocabulary: the
        authors' captions.pickle, or JSON {word: id}. All three must be set, or lie under these names in the
        home's data/weights, where relative ones are looked up after the working directory.
    captions: ``train`` or ``test``, the split of captions.pickle to draw from; or free texts, in words of the
        vocabulary; or a text file with one a line.
    num_words: words that are used of a longer caption, chosen at random; 25 in the authors' evaluation.
    image_px: side of the images; below 256 the later stages are not computed.
    fix_mask: see `DmganGenerator`.
    batch_size: images made at once. Part of what an image is: a slot's neighbours touch it, see fix_mask.
    """

    kind: Literal["dmgan"] = "dmgan"
    weights: Path = Path("bird_DMGAN.pth")
    text_encoder: Path = Path("text_encoder200.pth")
    vocabulary: Path = Path("captions.pickle")
    captions: Literal["train", "test"] | tuple[str, ...] | Path = "test"
    num_words: int = Field(default=25, gt=0)
    image_px: Literal[64, 128, 256] = 256
    fix_mask: bool = False
    batch_size: int = Field(default=16, gt=0)

    def open(self, seed: int, home: Path) -> "DmganSource":
        """Both networks and the captions, loaded. Raises InputError when a file is missing or wrong."""
        weights = find_weights("source.weights", self.weights, home, f"{WANTED_GENERATOR}, {_FROM}")
        texts = find_weights(
            "source.text_encoder", self.text_encoder, home, f"{WANTED_TEXT_ENCODER}, {_FROM} (DAMSM for bird)"
        )
        words = find_weights(
            "source.vocabulary", self.vocabulary, home, f"{WANTED_VOCABULARY}, {_FROM} (metadata for birds)"
        )
        generator, encoder = load_generator(weights, self.fix_mask), load_text_encoder(texts)
        vocabulary = read_vocabulary(words)
        self._check_fit(generator, encoder, vocabulary)
        captions = read_captions(self.captions, vocabulary, home)
        return DmganSource(self, generator, encoder, vocabulary, captions, (weights, texts), seed)

    def _check_fit(self, generator: DmganGenerator, encoder: TextEncoder, vocabulary: Vocabulary) -> None:
        if self.image_px not in generator.sizes_px:
            sizes = ", ".join(str(size) for size in generator.sizes_px)
            raise InputError(f"source.image_px: found {self.image_px}, wanted one of {sizes}")
        if encoder.num_features != generator.sizes.num_words:
            raise InputError(
                f"source.text_encoder: gives {encoder.num_features} features a word,"
                f" wanted {generator.sizes.num_words}, as the generator takes"
            )
        if vocabulary.num_tokens != encoder.encoder.num_embeddings:
            raise InputError(
                f"source.vocabulary: {vocabulary.path} numbers {vocabulary.num_tokens} words,"
                f" wanted {encoder.encoder.num_embeddings}, as the text encoder knows"
            )


class DmganSource:
    """Slot ``i`` is the image of a caption, a latent vector and a condition drawn from (seed, i).

    It is always made in the same batch: the authors' mask reaches across a batch.
    """

    size: None = None

    def __init__(
        self,
        config: DmganConfig,
        generator: DmganGenerator,
        encoder: TextEncoder,
        vocabulary: Vocabulary,
        captions: Sequence[Caption],
        files: tuple[Path, Path],
        seed: int,
    ) -> None:
        self._config = config
        self._generator = generator
        self._encoder = encoder
        self._vocabulary = vocabulary
        self._captions = captions
        self._files = files
        self._seed = seed

    def images(self, start: int, count: int) -> Iterator[ObjectImage]:
        """Slots ``start`` to ``start + count``."""
        for index, (image, caption) in aligned_slots(start, count, self._config.batch_size, self._batch):
            origin: dict[str, Scalar] = {"source": "dmgan", "latent_seed": self._seed, "latent_index": index}
            yield ObjectImage(str(index), image, origin | {"caption": caption})

    def identity(self) -> Mapping[str, Scalar]:
        """sha256 of both weight files and of the captions in words and in numbers."""
        return self._identity

    @cached_property
    def _identity(self) -> dict[str, Scalar]:
        weights, texts = self._files
        numbered = [(caption, self._vocabulary.words_of(caption)) for caption in self._captions]
        return {
            "weights_sha256": sha256_of(weights),
            "text_encoder_sha256": sha256_of(texts),
            "captions_sha256": hashlib.sha256(repr(numbered).encode()).hexdigest(),
        }

    def _batch(self, start: int) -> list[tuple[UInt8Array, str]]:
        """The batch's images (S, S, 3), each with its caption, whole."""
        slots = [self._draw(index) for index in range(start, start + self._config.batch_size)]
        whole, short, latents, eps = (list(column) for column in zip(*slots, strict=True))
        ids, lengths = (torch.from_numpy(array) for array in padded(short))
        with torch.inference_mode():
            words, sentences = self._encoder(ids, lengths)
            images = self._generator(
                *(torch.from_numpy(np.stack(rows)) for rows in (latents, eps)),
                *(sentences, words, ids == 0, self._config.image_px),
            )
            pixels: UInt8Array = to_uint8(images).numpy()
        return list(zip(pixels, map(self._vocabulary.words_of, whole), strict=True))

    def _draw(self, index: int) -> tuple[Caption, Caption, np.ndarray, np.ndarray]:
        """The slot's caption, its words that are used, its latent vector and its condition's eps."""
        rng = np.random.default_rng([self._seed, index])
        caption = self._captions[int(rng.integers(len(self._captions)))]
        sizes = self._generator.sizes
        latents, eps = (
            rng.standard_normal(length).astype(np.float32)
            for length in (sizes.num_latent, sizes.num_condition)
        )
        return caption, shorten(caption, self._config.num_words, rng), latents, eps


def read_captions(
    setting: str | tuple[str, ...] | Path, vocabulary: Vocabulary, home: Path
) -> tuple[Caption, ...]:
    """The captions that the setting ``source.captions`` names. Raises InputError when there are none."""
    if isinstance(setting, str):
        if setting not in vocabulary.splits:
            raise InputError(
                f"source.captions: found '{setting}', but {vocabulary.path} holds words only:"
                " wanted texts, a text file, or captions.pickle as the vocabulary"
            )
        return vocabulary.splits[setting]
    if isinstance(setting, Path):
        path = find_weights("source.captions", setting, home, "a text file with one caption a line")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        places = {f"{path}:{number}": line for number, line in enumerate(lines, 1) if line.strip()}
    else:
        places = {f"source.captions.{number}": text for number, text in enumerate(setting)}
    if not places:
        raise InputError("source.captions: found none, wanted at least one caption")
    return tuple(vocabulary.caption_of(text, place) for place, text in places.items())
