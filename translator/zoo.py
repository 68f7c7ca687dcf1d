"""Translators on disk: ``<root>/<space>/<name>.safetensors``, found by name for a pair of spaces.

Reads headers only (no torch). A space is named by its fingerprint, 12 hex digits over the projection weights
of the model that spans it: vectors of one space mean nothing in another, so a translator fits one pair only.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from . import InputError

SPACE = re.compile(r"[0-9a-z]{1,64}")
MAX_HEADER = 10_000_000  # bytes; a damaged file may claim any length


@dataclass(frozen=True)
class Entry:
    """A translator file and what its header says of it."""

    path: Path
    metadata: dict[str, str]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def spaces(self) -> tuple[str | None, str | None]:
        """Fingerprints of its CLIP and its CLAP space; None where the file does not say."""
        return self.metadata.get("clip_space"), self.metadata.get("clap_space")

    def fits(self, clip_space: str, clap_space: str) -> bool:
        """Whether it leads from ``clip_space`` to ``clap_space``; a file that says nothing is believed."""
        return self.spaces[0] in (None, clip_space) and self.spaces[1] in (None, clap_space)


def read_entry(path: Path) -> Entry:
    """What the file at ``path`` says of itself; a .pth file says nothing. Raises InputError."""
    if not os.path.isfile(path):
        raise InputError(f"no such translator file: {path}")
    if path.suffix in (".pth", ".pt"):
        return Entry(path, {})
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, MAX_HEADER)))
            entry = Entry(path, dict(header.get("__metadata__", {})))
        if not all(space is None or SPACE.fullmatch(space) for space in entry.spaces):  # they become names of folders
            raise ValueError
        return entry
    except (OSError, struct.error, ValueError, AttributeError, TypeError):
        raise InputError(f"{path} is not a translator file that can be read") from None


def available(root: Path) -> list[Entry]:
    """All translators under ``root``, by space and name. Files that cannot be read are left out."""
    entries = []
    for path in sorted(root.glob("*/*.safetensors")):
        try:
            entries.append(read_entry(path))
        except InputError:
            continue
    return entries


def find(name: str, roots: list[Path], clip_space: str, clap_space: str) -> Entry:
    """The translator called ``name`` for this pair of spaces, or the file at the path ``name``.

    Raises InputError: unknown name (with the nearest ones), or it belongs to other spaces.
    """
    if Path(name).suffix in (".safetensors", ".pth", ".pt") or len(Path(name).parts) > 1:
        known = namesakes = [read_entry(Path(os.path.expanduser(name)))]
    else:
        known = [entry for root in dict.fromkeys(roots) for entry in available(root)]
        namesakes = [entry for entry in known if entry.name == name]
    if not namesakes:
        usable = sorted({entry.name for entry in known if entry.fits(clip_space, clap_space)})
        raise InputError(f'unknown translator "{name}"{_nearest(name, usable)}')
    for entry in namesakes:
        if entry.fits(clip_space, clap_space):
            return entry
    clip, clap = namesakes[0].spaces
    raise InputError(
        f'the translator "{name}" leads from CLIP space {clip} to CLAP space {clap}, but this model has '
        f"{clip_space} and {clap_space}; a translator must be trained for the model it is used with"
    )


UNTOLD = ("clip_space", "clap_space", "name", "captions")  # facts that a list of one model's translators need not say


def facts(entry: Entry) -> str:
    """What is known of a translator, in one line."""
    return ", ".join(f"{key} {value}" for key, value in sorted(entry.metadata.items()) if key not in UNTOLD)


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there is {', '.join(known)}" if known else "; this model has none"
