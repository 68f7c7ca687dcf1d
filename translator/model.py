"""The translator network, and the files of all kinds of translators."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from . import InputError

KINDS = ("text", "image")  # which of CLIP's towers a vector comes from: the two live in two different cones
TENSORS = {f"fc{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")}
CENTRED = TENSORS | {"clip_means"}


class Translator(nn.Module):
    """(B, dim) in CLIP space, any length -> (B, dim) unit vectors in CLAP space, float32.

    Three linear layers with ReLU between, as in the thesis that this follows; tensor names are those of its
    files.

    Args:
        hidden: width of the two hidden layers; 256 or 512 in the thesis.
        dim: dimensions of both spaces; 512 for CLIP ViT-B and CLAP.
        dropout: probability, 0 to 1, after each ReLU, in training only; the thesis has 0.5 for one model.
        clip_means: (2, dim), the mean unit vector of CLIP's texts and of its images, to be subtracted from the unit
            input of that kind (C3, arXiv 2401.08567); None: none, as in the thesis.
    """

    def __init__(self, hidden: int, dim: int = 512, dropout: float = 0.0, clip_means: Tensor | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, dim)
        self.register_buffer("clip_means", clip_means)
        self.dropout = dropout
        self.generator: torch.Generator | None = None  # of dropout's randomness; None: torch's own
        self.metadata: dict[str, str] = {}  # what its file says: spaces, data, loss …

    @property
    def dim(self) -> int:
        return self.fc1.in_features

    def forward(self, clip: Tensor, kind: str | Tensor = "image") -> Tensor:
        """``kind``: the tower that gave the vectors, "text" or "image", or for each its number in KINDS, (B,)."""
        return self.layers(centred(clip, self.clip_means, kind))

    def layers(self, x: Tensor) -> Tensor:
        """What forward does with an input that is centred and of unit length already."""
        x = self._drop(F.relu(self.fc1(x)))
        x = self._drop(F.relu(self.fc2(x)))
        return F.normalize(self.fc3(x), dim=-1)

    def _drop(self, x: Tensor) -> Tensor:
        if not self.training or not self.dropout:
            return x
        keep = 1 - self.dropout
        return x * torch.empty_like(x).bernoulli_(keep, generator=self.generator) / keep


class LinearTranslator(nn.Module):
    """norm(clap_mean + W · norm(norm(c) - clip_mean)): (B, dim) in CLIP space -> (B, dim) unit vectors in CLAP space.

    One mean for CLIP's texts and one for its images, as the two live in two different cones. Source: C3,
    arXiv 2401.08567; ``closed_form`` finds W.

    Args:
        weight: (dim, dim), W.
        clap_mean: (dim,).
        clip_means: (2, dim), of texts and of images.
    """

    def __init__(self, weight: Tensor, clap_mean: Tensor, clip_means: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("clap_mean", clap_mean)
        self.register_buffer("clip_means", clip_means)
        self.metadata: dict[str, str] = {}

    @property
    def dim(self) -> int:
        return self.weight.shape[1]

    def forward(self, clip: Tensor, kind: str | Tensor = "image") -> Tensor:
        return F.normalize(self.clap_mean + centred(clip, self.clip_means, kind) @ self.weight.T, dim=-1)


def centred(clip: Tensor, means: Tensor | None, kind: str | Tensor) -> Tensor:
    """(B, dim) -> unit vectors; without the mean of their kind, if ``means`` (2, dim) are given."""
    unit = F.normalize(clip, dim=-1)
    if means is None:
        return unit
    return F.normalize(unit - means[KINDS.index(kind) if isinstance(kind, str) else kind], dim=-1)


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


def load_translator(path: str | Path) -> nn.Module:
    """Read a translator in eval mode: safetensors, or a state dict saved by torch (the thesis's .pth files).

    Its tensors tell which kind it is: Translator, LinearTranslator or memory.Memory. A .pth file has no metadata, so
    nothing says which spaces it belongs to. Raises InputError.
    """
    path = Path(path)
    try:
        state, metadata = _read_pickle(path) if path.suffix in (".pth", ".pt") else _read_safetensors(path)
    except FileNotFoundError:
        raise InputError(f"no such translator file: {path}") from None
    except Exception as error:  # those of pickle, zip and safetensors have no other base in common
        raise InputError(f"{path} is not a translator file that can be read") from error
    if not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"{path} is not a translator: it holds something else than tensors")
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise InputError(f"{path} is damaged: it holds weights that are not numbers")
    try:
        translator = _build({name: tensor.float() for name, tensor in state.items()}, metadata)
    except (RuntimeError, ValueError, IndexError, TypeError):
        raise InputError(f"{path} is not a translator: its tensors do not fit each other") from None
    if translator is None:
        raise InputError(f"{path} is not a translator: it must hold {', '.join(sorted(TENSORS))}")
    translator.metadata = metadata
    return translator.eval().requires_grad_(False)


def _build(state: dict[str, Tensor], metadata: dict[str, str]) -> nn.Module | None:
    if set(state) in (TENSORS, CENTRED):
        hidden, dim = state["fc1.weight"].shape
        means = state.get("clip_means")
        translator = Translator(hidden, dim, clip_means=None if means is None else torch.zeros(2, dim))
        translator.load_state_dict(state)
        return translator
    if set(state) == {"weight", "clap_mean", "clip_means"}:
        dim = len(state["clap_mean"])
        translator = LinearTranslator(torch.zeros(dim, dim), torch.zeros(dim), torch.zeros(2, dim))
        translator.load_state_dict(state)
        return translator
    if set(state) == {"clip", "clap"}:
        return Memory.from_state(state, metadata)
    return None


def save_translator(
    path: str | Path, translator: nn.Module, metadata: dict[str, str], dtype: torch.dtype = torch.float32
) -> None:
    """Write ``translator`` as safetensors, whole or not at all; a file at ``path`` is replaced.

    ``metadata`` (strings) must say clip_space and clap_space, the fingerprints of the spaces; of a network ``hidden``
    is added. ``dtype``: of the numbers in the file; float16 halves it. Raises InputError if a space is missing.
    """
    missing = {"clip_space", "clap_space"} - set(metadata)
    if missing:
        raise InputError(f"a translator's metadata must say {' and '.join(sorted(missing))}")
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in translator.state_dict().items()}
    if isinstance(translator, Translator):
        metadata = {**metadata, "hidden": str(translator.fc1.out_features)}
    write(Path(path), save(state, metadata))


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, over what has its name; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)  # mkstemp's 0600 is for secrets
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})


def _read_pickle(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    state = torch.load(path, map_location="cpu", weights_only=True)  # a stranger's pickle may run nothing
    return dict(state), {}
