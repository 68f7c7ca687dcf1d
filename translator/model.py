"""The kinds of translators, and their files."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from . import InputError
from .files import printable, write
from .zoo import is_pickle, unreadable

KINDS = ("text", "image")  # CLIP towers: their vectors lie in two different cones
TENSORS = {f"fc{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")}
CENTRED = TENSORS | {"clip_means"}
# How NumPy's numbers and arrays are written: nobody needs a loss that was saved beside the weights.
NUMPY = ("dtype", "ndarray", *(f"{core}.multiarray.{make}" for core in ("core", "_core")
                               for make in ("scalar", "_reconstruct")))  # fmt: skip
SHARPNESS = 4.0  # of a memory; chosen on photographs that judge nothing (docs/translators.md)


class BaseTranslator(nn.Module):
    """(B, dim) in CLIP space, of any length -> (B, dim) unit vectors in CLAP space, float32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim  # of both spaces
        self.metadata: dict[str, str] = {}  # of its file: spaces, data, loss …

    def forward(self, clip: Tensor, kind: str | Tensor = "image") -> Tensor:
        """Translate.

        Args:
            clip: (B, dim).
            kind: the tower that made the vectors, "text" or "image", or (B,) its number in KINDS for each.
        """
        raise NotImplementedError


class Translator(BaseTranslator):
    """Three linear layers with ReLU between them, as in the thesis; tensor names are those of its files.

    Args:
        hidden: width of the two hidden layers; 256 or 512 in the thesis.
        dim: dimensions of both spaces; 512 for CLIP ViT-B and CLAP.
        dropout: probability, 0 to 1, after each ReLU, in training only; the thesis has 0.5 for one model.
        clip_means: (2, dim), the mean unit vectors of CLIP's texts and images, which are subtracted from the unit
            input of that kind (C3, arXiv 2401.08567); None: nothing is subtracted, as in the thesis.
    """

    clip_means: Tensor | None

    def __init__(self, hidden: int, dim: int = 512, dropout: float = 0.0, clip_means: Tensor | None = None) -> None:
        super().__init__(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, dim)
        self.register_buffer("clip_means", clip_means)
        self.dropout = dropout
        self.generator: torch.Generator | None = None  # for dropout; None: torch's own

    def forward(self, clip: Tensor, kind: str | Tensor = "image") -> Tensor:
        return self.layers(centred(clip, self.clip_means, kind))

    def layers(self, x: Tensor) -> Tensor:
        """Apply the layers to an input that is already centred and of unit length."""
        x = self._drop(F.relu(self.fc1(x)))
        x = self._drop(F.relu(self.fc2(x)))
        return F.normalize(self.fc3(x), dim=-1)

    def _drop(self, x: Tensor) -> Tensor:
        if not self.training or not self.dropout:
            return x
        keep = 1 - self.dropout
        return x * torch.empty_like(x).bernoulli_(keep, generator=self.generator) / keep


class LinearTranslator(BaseTranslator):
    """norm(clap_mean + W · norm(norm(c) - clip_mean)), with one clip_mean for CLIP's texts and one for its images.

    Source: C3, arXiv 2401.08567; ``training.closed_form`` finds W.

    Args:
        weight: (dim, dim), W.
        clap_mean: (dim,).
        clip_means: (2, dim), of texts and of images.
    """

    weight: Tensor
    clap_mean: Tensor
    clip_means: Tensor

    def __init__(self, weight: Tensor, clap_mean: Tensor, clip_means: Tensor) -> None:
        super().__init__(weight.shape[1])
        self.register_buffer("weight", weight)
        self.register_buffer("clap_mean", clap_mean)
        self.register_buffer("clip_means", clip_means)

    def forward(self, clip: Tensor, kind: str | Tensor = "image") -> Tensor:
        return F.normalize(self.clap_mean + centred(clip, self.clip_means, kind) @ self.weight.T, dim=-1)


class Memory(BaseTranslator):
    """The mean of the CLAP vectors of captions, weighted by the caption's similarity to the input in CLIP space.

    Works for any two spaces without training, and can name the captions it used. The idea is DeCap's projection onto a
    memory of texts (Li et al., ICLR 2023, arXiv 2303.03032). DeCap's fixed temperature of 1/150 suits only the narrow
    range of CLIP's cosines; here the cosines are first scaled to zero mean and unit deviation over the captions.

    Args:
        clip: (N, dim) vectors of the captions by CLIP's text tower, of any length.
        clap: (N, dim) vectors of the same captions by CLAP's text tower.
        captions: the N captions.
        sharpness: factor on the scaled cosines; the larger, the more the nearest captions count.
    """

    clip: Tensor
    clap: Tensor

    def __init__(self, clip: Tensor, clap: Tensor, captions: Sequence[str], sharpness: float = SHARPNESS) -> None:
        super().__init__(clip.shape[-1])
        if not clip.shape == clap.shape == (len(captions), clip.shape[-1]) or len(captions) < 2 or not clip.numel():
            raise ValueError("a memory needs two captions or more, and both vectors of each")
        if not math.isfinite(sharpness):
            raise ValueError("a memory's sharpness must be a number")
        self.register_buffer("clip", F.normalize(clip, dim=-1))
        self.register_buffer("clap", F.normalize(clap, dim=-1))
        self.captions, self.sharpness = list(captions), sharpness

    @classmethod
    def from_state(cls, state: dict[str, Tensor], metadata: dict[str, str]) -> Memory:
        """Build a memory from its file's content. Raises ValueError."""
        try:
            captions = json.loads(metadata["captions"])
            return cls(state["clip"], state["clap"], list(map(str, captions)), float(metadata["sharpness"]))
        except (KeyError, TypeError) as error:
            raise ValueError("no captions") from error

    def facts(self) -> dict[str, str]:
        """The metadata that its file needs besides the spaces."""
        return {"captions": json.dumps(self.captions, ensure_ascii=False), "sharpness": str(self.sharpness)}

    def weights(self, clip: Tensor) -> Tensor:
        """(B, dim) -> (B, N), the weight of each caption; rows sum to 1."""
        cosines = F.normalize(clip, dim=-1) @ self.clip.T
        scores = (cosines - cosines.mean(-1, keepdim=True)) / cosines.std(-1, keepdim=True).clamp(min=1e-6)
        return torch.softmax(self.sharpness * scores, dim=-1)

    def forward(self, clip: Tensor, kind: str | Tensor = "image") -> Tensor:
        """``kind`` makes no difference: a shift that all captions share cancels out in the comparison."""
        return F.normalize(self.weights(clip) @ self.clap, dim=-1)

    def leaned_on(self, clip: Tensor, count: int = 5) -> list[tuple[str, float]]:
        """The ``count`` captions with the largest weights for one vector (dim,) or (1, dim), and these weights."""
        weights, rows = self.weights(clip.reshape(1, -1))[0].topk(min(count, len(self.captions)))
        return [(self.captions[row], weight) for row, weight in zip(rows.tolist(), weights.tolist(), strict=True)]


def centred(clip: Tensor, means: Tensor | None, kind: str | Tensor) -> Tensor:
    """(B, dim) -> unit vectors, from which the mean of their kind is subtracted if ``means`` (2, dim) are given."""
    unit = F.normalize(clip, dim=-1)
    if means is None:
        return unit
    return F.normalize(unit - means[KINDS.index(kind) if isinstance(kind, str) else kind], dim=-1)


def load_translator(path: str | Path) -> BaseTranslator:
    """Read a translator in eval mode: safetensors, or what torch saved (.pth): a state dict, as in the thesis, also
    within a larger dict, beside an optimiser's state, and with "module." before its names.

    Its tensors tell the class. A .pth file has no metadata, so nothing names its spaces. Raises InputError.
    """
    path = Path(path)
    try:
        found, metadata = _read_pickle(path) if is_pickle(path) else _read_safetensors(path)
    except FileNotFoundError:
        raise InputError(f"no such translator file: {path}") from None
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} is not a readable translator file: it is cut short, or holds Python objects, which would run "
            "code; save the network's state_dict()"
        ) from None
    except Exception as error:  # those of pickle, zip and safetensors have no other base in common
        raise unreadable(path) from error
    state = _network(found)
    if not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"{path} is not a translator: {_why_not(found)}")
    if wrong := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise InputError(f"{path} is damaged: its tensor {wrong[0]} holds NaN or infinite numbers")
    try:
        translator = _build({name: tensor.float() for name, tensor in state.items()}, metadata)
    except (RuntimeError, ValueError, IndexError, TypeError):
        raise InputError(f"{path} is not a translator: its tensors or captions do not fit together") from None
    if translator is None:
        raise InputError(f"{path} is not a translator: {_why_not(found)}")
    translator.metadata = metadata
    return translator.eval().requires_grad_(False)


def _build(state: dict[str, Tensor], metadata: dict[str, str]) -> BaseTranslator | None:
    translator: BaseTranslator
    if set(state) in (TENSORS, CENTRED):
        hidden, dim = state["fc1.weight"].shape
        translator = Translator(hidden, dim, clip_means=torch.zeros(2, dim) if "clip_means" in state else None)
    elif set(state) == {"weight", "clap_mean", "clip_means"}:
        dim = len(state["clap_mean"])
        translator = LinearTranslator(torch.zeros(dim, dim), torch.zeros(dim), torch.zeros(2, dim))
    elif set(state) == {"clip", "clap"}:
        return Memory.from_state(state, metadata)
    else:
        return None
    translator.load_state_dict(state)
    return translator


def save_translator(
    path: str | Path, translator: BaseTranslator, metadata: dict[str, str], dtype: torch.dtype = torch.float32
) -> None:
    """Write ``translator`` as safetensors, whole or not at all; an existing file is replaced.

    Args:
        path: the file.
        translator: the network's ``hidden`` is added to the metadata.
        metadata: must have clip_space and clap_space, the fingerprints of the spaces.
        dtype: of the numbers in the file; float16 halves it.

    Raises InputError if a space is missing.
    """
    missing = {"clip_space", "clap_space"} - set(metadata)
    if missing:
        raise InputError(f"a translator's metadata must have {' and '.join(sorted(missing))}")
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in translator.state_dict().items()}
    if isinstance(translator, Translator):
        metadata = {**metadata, "hidden": str(translator.fc1.out_features)}
    write(Path(path), save(state, metadata))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})


def _read_pickle(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    with torch.serialization.safe_globals([(_OfNumpy, f"numpy.{name}") for name in NUMPY]):
        found = torch.load(path, map_location="cpu", weights_only=True)  # a stranger's pickle may run nothing
    return dict(found) if isinstance(found, Mapping) else {type(found).__name__: found}, {}


class _OfNumpy:
    """What takes the place of NumPy's values, and of their types, in a pickle; their content is dropped."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def _network(found: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of the network in a file, without what was saved beside them; if there is none, all of the file."""
    state = _nearest(found)
    return {name: state[name] for name in CENTRED & state.keys()} if state.keys() >= TENSORS else dict(found)


def _nearest(found: Mapping[str, Any]) -> dict[str, Any]:
    """Whichever has most of TENSORS: what a file holds, or a dict in it, with names as before DataParallel."""
    states = [{str(name).removeprefix("module."): value for name, value in content.items()}
              for content in (found, *found.values()) if isinstance(content, Mapping)]  # fmt: skip
    return max(states, key=lambda state: len(TENSORS & state.keys()))


def _why_not(found: Mapping[str, Any]) -> str:
    """Why this is no translator: what it holds, what it lacks and what is required."""
    lacking = TENSORS - _nearest(found).keys()
    lacks = f" and lacks {', '.join(sorted(lacking))}" if lacking < TENSORS else ""
    what = lacks if lacking else ", not all of which are tensors"
    return f"it holds {_summary(found)}{what}; required tensors: {', '.join(sorted(TENSORS))}"


def _summary(state: Mapping[str, Any]) -> str:
    """The first names in a file, of dicts with the names in them."""
    names = [f"{name} ({_summary(value)})" if isinstance(value, Mapping) and value else str(name)
             for name, value in state.items()]  # fmt: skip
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return printable(", ".join(names[:6]) + more) if names else "nothing"
