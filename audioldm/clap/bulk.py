"""Many texts through a text tower: in batches of similar length, in the fastest precision that is good enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoints.tensors import fast_dtype

BATCH = 128  # texts in one pass; more are not faster on a CPU
PROBE = 32  # texts on which the precision is decided
CLOSE = 0.9999  # smallest cosine of a vector to the one computed in float32

Encode = Callable[[Sequence[str]], Tensor]  # N texts -> (N, dim)

class FastText:
    """A text tower in 16-bit arithmetic, if the processor has it and the vectors stay as they are in float32.

    How far the numbers of a network can be rounded depends on its weights. So the first texts are encoded both ways,
    and if the cosine of any pair is below CLOSE, float32 is used.

    Args:
        encode: the tower.
        device: where it is.
    """

    def __init__(self, encode: Encode, device: torch.device) -> None:
        self._encode, self._device = encode, device
        self.dtype: torch.dtype | None = None  # of its products; None: not decided yet

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, dim) float32 of N texts, in one pass; fastest when texts have similar lengths."""
        if self.dtype is None:
            self.dtype = self._decide(texts[:PROBE])
        return self._in(self.dtype, texts)

    def _in(self, dtype: torch.dtype, texts: Sequence[str]) -> Tensor:
        with torch.autocast(self._device.type, dtype, enabled=dtype != torch.float32):
            return self._encode(texts).float()

    def _decide(self, texts: Sequence[str]) -> torch.dtype:
        fast = fast_dtype(self._device)
        if fast == torch.float32:
            return fast
        nearness = F.cosine_similarity(self._in(fast, texts), self._in(torch.float32, texts)).min().item()
        return fast if nearness >= CLOSE else torch.float32


def batches_by_length(texts: Sequence[str], size: int = BATCH) -> Iterator[list[int]]:
    """Indices of ``texts`` in batches of similar length. The longest come first, so a lack of memory shows at once."""
    order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
    yield from (order[start : start + size] for start in range(0, len(order), size))


def encode_all(encode: Encode, device: torch.device, texts: Sequence[str], on_rows: Callable[[int], object]) -> Tensor:
    """(N, dim) of any number of texts, on the CPU; ``on_rows`` is called after each batch with its number of texts."""
    tower, parts, places = FastText(encode, device), list[Tensor](), list[int]()
    for batch in batches_by_length(texts):
        parts.append(tower([texts[place] for place in batch]).cpu())
        places += batch
        on_rows(len(batch))
    return torch.cat(parts)[torch.tensor(places).argsort()]
