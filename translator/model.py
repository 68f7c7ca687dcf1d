"""The translator network, and its files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from . import TranslatorError

TENSORS = {f"fc{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")}


class Translator(nn.Module):
    """(B, dim) in CLIP space, any length -> (B, dim) unit vectors in CLAP space, float32.

    Three linear layers with ReLU between, as in the thesis that this follows; tensor names are those of its
    files.

    Args:
        hidden: width of the two hidden layers; 256 or 512 in the thesis.
        dim: dimensions of both spaces; 512 for CLIP ViT-B and CLAP.
        dropout: probability, 0 to 1, after each ReLU, in training only; the thesis has 0.5 for one model.
    """

    def __init__(self, hidden: int, dim: int = 512, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)
        self.metadata: dict[str, str] = {}  # what its file says: spaces, data, loss …

    def forward(self, clip: Tensor) -> Tensor:
        x = F.normalize(clip, dim=-1)
        x = self.dropout(F.relu(self.fc1(x)))
        x = self.dropout(F.relu(self.fc2(x)))
        return F.normalize(self.fc3(x), dim=-1)


def load_translator(path: str | Path) -> Translator:
    """Read a translator in eval mode: safetensors, or a state dict saved by torch (the thesis's .pth files).

    A .pth file has no metadata, so nothing says which spaces it belongs to. Raises TranslatorError.
    """
    path = Path(path)
    try:
        state, metadata = _read_pickle(path) if path.suffix in (".pth", ".pt") else _read_safetensors(path)
    except FileNotFoundError:
        raise TranslatorError(f"no such translator file: {path}") from None
    except Exception as error:  # those of pickle, zip and safetensors have no other base in common
        raise TranslatorError(f"{path} is not a translator file that can be read") from error
    if set(state) != TENSORS or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise TranslatorError(f"{path} is not a translator: it must hold {', '.join(sorted(TENSORS))}")
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise TranslatorError(f"{path} is damaged: it holds weights that are not numbers")
    hidden, dim = state["fc1.weight"].shape if state["fc1.weight"].dim() == 2 else (1, 1)
    translator = Translator(hidden, dim)
    try:
        translator.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except RuntimeError:
        raise TranslatorError(f"{path} is not a translator: its tensors do not fit each other") from None
    translator.metadata = metadata
    return translator.eval().requires_grad_(False)


def save_translator(path: str | Path, translator: Translator, metadata: dict[str, str]) -> None:
    """Write ``translator`` as safetensors, whole or not at all; a file at ``path`` is replaced.

    ``metadata`` (strings) must say clip_space and clap_space, the fingerprints of the spaces; ``hidden`` is
    added. Raises TranslatorError if one is missing.
    """
    path = Path(path)
    missing = {"clip_space", "clap_space"} - set(metadata)
    if missing:
        raise TranslatorError(f"a translator's metadata must say {' and '.join(sorted(missing))}")
    state = {
        name: tensor.detach().float().cpu().contiguous() for name, tensor in translator.state_dict().items()
    }
    content = save(state, {**metadata, "hidden": str(translator.fc1.out_features)})
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
