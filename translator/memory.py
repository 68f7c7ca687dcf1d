"""Translation without training: which captions does CLIP see in this picture? Their CLAP vectors, averaged.

A bank of captions is embedded by CLIP's and by CLAP's text tower. A picture's CLIP vector is compared with all captions
in CLIP space, and the CLAP vectors of those it is near to are averaged by how near it is. So it works for any two
spaces at once, and can say which captions it leaned on. The idea is DeCap's projection onto a memory of texts (Li et
al., ICLR 2023, arXiv 2303.03032), whose fixed temperature of 1/150 fits CLIP's narrow cosines only: here they are
brought to zero mean and unit deviation over the bank first.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import TranslatorError, zoo

if TYPE_CHECKING:
    from .data import Pairs

SHARPNESS = 4.0  # factor on the standardised cosines; chosen on photographs that judge nothing (docs/translators.md)


class Memory(nn.Module):
    """(B, dim) in CLIP space -> (B, dim) unit vectors in CLAP space.

    Args:
        clip: (N, dim) vectors of the captions by CLIP's text tower, any length.
        clap: (N, dim) vectors of the same by CLAP's.
        captions: the N captions.
        sharpness: how much more the nearest captions count than the others.
    """

    def __init__(self, clip: Tensor, clap: Tensor, captions: Sequence[str], sharpness: float = SHARPNESS) -> None:
        super().__init__()
        if not clip.shape == clap.shape == (len(captions), clip.shape[-1]) or len(captions) < 2 or not clip.numel():
            raise ValueError("a memory needs two captions or more, and both vectors of each")
        if not math.isfinite(sharpness):
            raise ValueError("a memory's sharpness must be a number")
        self.register_buffer("clip", F.normalize(clip, dim=-1))
        self.register_buffer("clap", F.normalize(clap, dim=-1))
        self.captions, self.sharpness = list(captions), sharpness
        self.metadata: dict[str, str] = {}

    @classmethod
    def from_state(cls, state: dict[str, Tensor], metadata: dict[str, str]) -> Memory:
        """Raises ValueError."""
        try:
            captions = json.loads(metadata["captions"])
            return cls(state["clip"], state["clap"], list(map(str, captions)), float(metadata["sharpness"]))
        except (KeyError, TypeError) as error:
            raise ValueError("no captions") from error

    def facts(self) -> dict[str, str]:
        """What its file's metadata must say beside the spaces."""
        return {"captions": json.dumps(self.captions, ensure_ascii=False), "sharpness": str(self.sharpness)}

    @property
    def dim(self) -> int:
        return self.clip.shape[1]

    def weights(self, clip: Tensor) -> Tensor:
        """(B, dim) -> (B, N), how much each caption counts; rows sum to 1."""
        cosines = F.normalize(clip, dim=-1) @ self.clip.T
        scores = (cosines - cosines.mean(-1, keepdim=True)) / cosines.std(-1, keepdim=True).clamp(min=1e-6)
        return torch.softmax(self.sharpness * scores, dim=-1)

    def forward(self, clip: Tensor, kind: str | Tensor = "image") -> Tensor:
        """``kind`` makes no difference: what is the same for all captions falls out of the comparison."""
        return F.normalize(self.weights(clip) @ self.clap, dim=-1)

    def leaned_on(self, clip: Tensor, count: int = 5) -> list[tuple[str, float]]:
        """The ``count`` captions that counted most for one vector (dim,) or (1, dim), with their weights."""
        weights, rows = self.weights(clip.reshape(1, -1))[0].topk(min(count, len(self.captions)))
        return [(self.captions[row], weight) for row, weight in zip(rows.tolist(), weights.tolist(), strict=True)]


def draw(sources: Sequence[Pairs], size: int, seed: int = 0) -> Memory:
    """A memory of ``size`` different captions of the training pairs (of captions, not of pictures), drawn by ``seed``.

    Raises TranslatorError if there are fewer than two.
    """
    kept: dict[int, tuple[str, Tensor, Tensor]] = {}  # by a hash, of which the smallest stay
    for pairs in sources:
        for words, batch in pairs.captions():
            for row in range(len(words)):
                if batch.kind[row] == 0 and words[row].strip():
                    key = zlib.crc32(f"{seed} {words[row].casefold()}".encode())
                    kept.setdefault(key, (words[row], batch.clip[row].clone(), batch.clap[row].clone()))
            kept = dict(sorted(kept.items())[: max(size, 0)])
    if len(kept) < 2:
        raise TranslatorError("a memory needs two different captions or more, embedded by CLIP's text tower")
    captions, clip, clap = zip(*kept.values(), strict=True)
    return Memory(torch.stack(clip), torch.stack(clap), captions)


def keep(sources: dict[str, Pairs], out: Path, size: int, seed: int = 0) -> Path:
    """Write memory.safetensors with ``size`` pairs of the data, and memory.json. Raises as closed_form.make."""
    from . import record  # which imports model, which imports this

    made = {**record.data_facts(sources), "captions": size, "seed": seed}
    path = out / "memory.safetensors"
    if record.there(path, made):
        return path
    kept = draw(list(sources.values()), size, seed)
    if len(kept.facts()["captions"].encode()) > zoo.MAX_HEADER // 2:  # the quotes in it are written as two signs
        raise TranslatorError(f"{len(kept.captions)} captions are more than a file's header holds; keep fewer of them")
    return record.save(kept, "memory", "memory", made, out, half=False, more=kept.facts())
