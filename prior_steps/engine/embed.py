"""Rows → vectors: captions and pictures in batches, through the towers of the model in use.

``audioldm`` encodes prompts one by one, so that their vectors are bit-identical in any batch. Here a batch is one pass,
which is many times as fast; a vector depends on its batch by at most 1e-5. Texts are encoded in 16 bits where that
leaves the cosine of a vector to the one in float32 at 0.9999 or more (``audioldm.clap.bulk``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..readers.rows import OK, Row

if TYPE_CHECKING:
    from torch import Tensor

    from audioldm.clap.bulk import FastText
    from audioldm.latent_diffusion.model import LatentDiffusion

Kind = Literal["text", "image"]  # CLIP's input: the caption or the picture
Prepared = tuple[Row, "Tensor | None"]  # a row, and its picture as CLIP takes it
CLIP, CLAP = TOWERS = ("clip", "clap")
TEXT_BATCH, IMAGE_BATCH = 128, 16  # larger ones are not faster on a CPU


@dataclass
class Embedded:
    """Rows and their vectors, float32 (N, D), NaN where there is none; None for a tower that was not used."""

    rows: list[Row]
    clip: np.ndarray | None
    clap: np.ndarray | None

    @classmethod
    def join(cls, parts: Sequence[Embedded]) -> Embedded:
        """Concatenate ``parts``."""
        vectors = [[getattr(part, tower) for part in parts] for tower in TOWERS]
        rows = [row for part in parts for row in part.rows]
        return cls(rows, *(None if some[0] is None else np.concatenate(some) for some in vectors))


class Embedder:
    """The towers that make pairs, each loaded at first use.

    Args:
        model: a name or folder, as for ``--model_name`` of audioldm.
        device: "auto", "cpu", "cuda" …
        kind: CLIP's input.
        towers: ("clip", "clap") or one of them.

    Raises InputError, now and later: there is no such model or device, or the model is damaged.
    """

    def __init__(
        self, model: str = "starter", device: str = "auto", kind: Kind = "text", towers: Sequence[str] = TOWERS
    ) -> None:
        from audioldm import build_model

        self.model: LatentDiffusion = build_model(model_name=model, device=device)
        self.kind, self.towers = kind, tuple(towers)

    @property
    def name(self) -> str:
        """What --model calls the model, from any folder."""
        from audioldm.registry import name_of

        return name_of(self.model.folder)

    @cached_property
    def versions(self) -> dict[str, str]:
        """Versions of the libraries and the model that make the vectors."""
        from importlib.metadata import version

        from audioldm import __version__

        libraries = ("torch", "transformers", "tokenizers", "numpy", "Pillow")
        found = {name: version(name) for name in libraries}
        return {"audioldm": __version__, "model": self.model.folder.name, **found}

    @cached_property
    def _clip_text(self) -> FastText:
        return self._fast(self.model.clip.encode_text_batch)

    @cached_property
    def _clap_text(self) -> FastText:
        return self._fast(self.model.clap.encode_text_batch)

    def _fast(self, encode: Callable[[Sequence[str]], Tensor]) -> FastText:
        from audioldm.clap.bulk import FastText

        return FastText(encode, self.model.device)

    def prepare(self, row: Row) -> Prepared:
        """Decode a row's picture to CLIP's input, and drop its bytes; may be called from any thread.

        A row whose picture cannot be decoded fails.
        """
        if row.status != OK or self.kind == "text":
            return row, None
        from audioldm.errors import InputError
        from audioldm.inputs.images import decode_image
        from translator.files import label

        name = label(row.url) if row.url else "the picture"
        if row.content is None:
            return row.failed("no_image", f"{name} is neither in the row nor downloaded"), None
        try:
            image = decode_image(row.content, name)
        except InputError as error:
            return row.failed(picture_status(error), str(error)), None
        return replace(row, content=None), self.model.clip.pixels(image)

    def __call__(
        self, prepared: Sequence[Prepared], on_rows: Callable[[int], object] = lambda rows: None
    ) -> Embedded:
        """Embed the rows from ``prepare``, except failed ones; ``on_rows`` is called with numbers of done rows."""
        self._pin_precision()
        rows = [row for row, _ in prepared]
        vectors = {tower: np.full((len(rows), self.model.dimension), np.nan, np.float32) for tower in self.towers}
        # Sorted by length, for little padding; longest first, so that a lack of memory shows at once.
        order = sorted((i for i, row in enumerate(rows) if row.status == OK), key=lambda i: -len(rows[i].caption))
        on_rows(len(rows) - len(order))
        size = TEXT_BATCH if self.kind == "text" else IMAGE_BATCH
        for chosen in (order[i : i + size] for i in range(0, len(order), size)):
            if CLIP in vectors:
                vectors[CLIP][chosen] = self._clip([prepared[i] for i in chosen]).cpu().numpy()
            captioned = [i for i in chosen if rows[i].caption]
            if CLAP in vectors and captioned:
                captions = [rows[i].caption for i in captioned]
                vectors[CLAP][captioned] = self._clap_text(captions).cpu().numpy()
            for i in chosen:
                rows[i] = _checked(rows[i], [vectors[t][i] for t in vectors if t == CLIP or rows[i].caption])
            on_rows(len(chosen))
        return Embedded(rows, vectors.get(CLIP), vectors.get(CLAP))

    def _clip(self, prepared: Sequence[Prepared]) -> Tensor:
        if self.kind == "text":
            return self._clip_text([row.caption for row, _ in prepared])
        return self.model.clip.encode_pixels_batch([pixels for _, pixels in prepared if pixels is not None])

    @staticmethod
    def _pin_precision() -> None:
        """Keep GPUs from rounding the inputs of matrix products and convolutions to 10 bits (TF32)."""
        import torch

        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False


def _checked(row: Row, vectors: Sequence[np.ndarray]) -> Row:
    if not all(np.isfinite(vector).all() for vector in vectors):
        return row.failed("not_finite", "the model gives a vector with numbers that are not finite")
    if not all(vector.any() for vector in vectors):
        return row.failed("zero_vector", "the model gives a vector of zeros, which has no direction")
    return row


def picture_status(error: Exception) -> str:
    """The status for an InputError of decode_image."""
    from PIL import Image

    kinds = {Image.UnidentifiedImageError: "not_an_image", Image.DecompressionBombError: "too_large"}
    cause = error.__cause__
    return kinds.get(type(cause), "unusable_image" if cause is None else "damaged_image")
