"""Translators on disk: ``<root>/<spaces>/<name>.safetensors``, found by name for a pair of spaces.

Reads headers only, without torch. Vectors of one space mean nothing in another, so a translator fits one pair of
spaces.

A space is named by its fingerprint, 12 hex digits over projection weights of the model that spans it. CLAP's used to
be taken from the projections of both towers. It is taken from the text tower's now, because some published models have
no audio tower. Translators and shards that carry a former name remain usable.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

from . import InputError

SPACE = re.compile(r"[0-9a-z]{1,64}")
_current = {"490663384519": "9514d24e30e0"}  # CLAP of the bundled starter, which its translators still call so
PICKLES = (".pth", ".pt")
ENDINGS = (".safetensors", *PICKLES)  # of translator files, in capitals too
JUDGED = "evaluation.json"  # beside translators: the results of ``evaluate -o``
UNNAMED = (
    "{} does not say which spaces it was trained for. The thesis trained towards the space of laion_clap's default "
    "checkpoint, in which no model here lives; a translator that was trained so makes unrelated sounds"
)
ASSUMED = {"spaces": "assumed"}  # metadata of an installed file that named no spaces, and was given a model's
COLUMNS = ("name", "loss", "width", "data", "R@1")


def rename(former: str, current: str) -> None:
    """Note that the space ``current`` was called ``former``."""
    _current[former] = current


def current(space: str) -> str:
    """Today's name of a space."""
    return _current.get(space, space)


@dataclass(frozen=True)
class Entry:
    """A translator file and the metadata in its header."""

    path: Path
    metadata: dict[str, str]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def spaces(self) -> tuple[str | None, str | None]:
        """Today's names of its CLIP and its CLAP space; None where the file does not name them."""
        clip, clap = (self.metadata.get(name) for name in ("clip_space", "clap_space"))
        return clip and current(clip), clap and current(clap)

    @property
    def unnamed(self) -> bool:
        """Whether nobody knows its spaces: the file names none, or those that it was given when it was installed."""
        return None in self.spaces or self.metadata.items() >= ASSUMED.items()

    def fits(self, clip_space: str, clap_space: str) -> bool:
        """Whether it translates between these spaces; a file that names none fits all."""
        return self.spaces[0] in (None, clip_space) and self.spaces[1] in (None, clap_space)

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row of the table: values of COLUMNS, empty where unknown."""
        data = re.sub(r"\d{4,}", lambda number: f"{int(number[0]):,}", self.metadata.get("data", ""))
        recall = _recalls(self.path.with_name(JUDGED)).get(self.name)
        loss = self.metadata.get("loss") or ("" if self.metadata.get("kind") == "network" else "none")
        return self.name, loss, self.metadata.get("hidden", ""), data, "" if recall is None else f"{recall:.1%}"


@lru_cache
def _recalls(path: Path) -> dict[str, float]:
    """R@1 of the translators in a folder, by name, from the evaluation there; empty if there is none."""
    try:
        judged = json.loads(path.read_text(encoding="utf-8"))["translators"]
        return {name: float(found["classes"]["R@1"]["value"]) for name, found in judged.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def read_entry(path: Path) -> Entry:
    """Read the metadata of the file at ``path``; a .pth file has none. Raises InputError."""
    if not os.path.isfile(path):
        raise InputError(f"no such translator file: {path}")
    if is_pickle(path):
        return Entry(path, {})
    try:
        with safe_open(path, framework="numpy") as file:
            entry = Entry(path, dict(file.metadata() or {}))
    except (OSError, SafetensorError):
        raise unreadable(path) from None
    if not all(space is None or SPACE.fullmatch(space) for space in entry.spaces):  # they become names of folders
        raise InputError(f"{path} is not a readable translator file: it names impossible spaces")
    return entry


def available(root: Path) -> list[Entry]:
    """All translators under ``root``, by space and name, without files that cannot be read."""
    entries = []
    for path in sorted(root.glob("*/*.safetensors")):
        try:
            entries.append(read_entry(path))
        except InputError:
            continue
    return entries


def unreadable(path: Path) -> InputError:
    """The error for a file that cannot be read as a translator."""
    endings = "" if path.suffix.lower() in ENDINGS else f"; those that are end in {', '.join(ENDINGS)}"
    return InputError(f"{path} is not a readable translator file{endings}")


def is_pickle(path: Path) -> bool:
    """Whether torch saved the file, as far as its name says."""
    return path.suffix.lower() in PICKLES


def is_path(name: str) -> bool:
    """Whether ``name`` means a file, not a translator that is installed."""
    return Path(name).suffix.lower() in ENDINGS or len(Path(name).parts) > 1


def find(
    name: str, roots: list[Path], clip_space: str, clap_space: str, others: Iterable[str] = ()
) -> Entry:
    """Find the translator called ``name`` for this pair of spaces, or the file at the path ``name``.

    ``others``: names that translators can have, suggested when a name is mistyped.

    Raises InputError: the name is unknown (with the nearest names), or the translator belongs to other spaces.
    """
    if is_path(name):
        known = namesakes = [read_entry(Path(os.path.expanduser(name)))]
    else:
        known = [entry for root in dict.fromkeys(roots) for entry in available(root)]
        namesakes = [entry for entry in known if entry.name == name]
    if not namesakes:
        raise missing(name, [entry.name for entry in known if entry.fits(clip_space, clap_space)], others)
    for entry in namesakes:
        if entry.fits(clip_space, clap_space):
            return entry
    clip, clap = namesakes[0].spaces
    raise InputError(
        f'the translator "{name}" leads from CLIP space {clip} to CLAP space {clap}, but this model has '
        f"{clip_space} and {clap_space}; a translator works only with the model it was trained for"
    )


def missing(name: str, known: Iterable[str], others: Iterable[str]) -> InputError:
    """The error for a name that no translator has, where ``known`` are there and ``others`` can be.

    It names the nearest, or says why a file of that name is none.
    """
    known, others = sorted(set(known)), list(others)
    if name in others:
        return InputError(f'this model has no translator "{name}"')
    if os.path.isfile(os.path.expanduser(name)):
        return unreadable(Path(name))
    near = difflib.get_close_matches(name, sorted({*known, *others}), n=3, cutoff=0.4)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif known:
        hint = f"available: {', '.join(known)}"
    else:
        hint = f"this model has none; it may have: {', '.join(others)}" if others else "this model has none"
    return InputError(f'unknown translator "{name}"; {hint}')


def table(entries: Iterable[Entry], default: str | None = None, missing: Mapping[str, str] | None = None) -> list[str]:
    """Lines of a table of translators, by name.

    Args:
        entries: the translators.
        default: name of the one that gets a star.
        missing: further names -> why they are not among ``entries``.
    """
    rows = {cells[0]: cells for cells in (entry.cells for entry in entries)}
    rows |= {name: (name, why) for name, why in (missing or {}).items() if name not in rows}
    full = [row for row in (COLUMNS, *rows.values()) if len(row) == len(COLUMNS)]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    widths[0] = max(map(len, (COLUMNS[0], *rows)))
    lines = []
    for cells in (COLUMNS, *(rows[name] for name in sorted(rows))):
        padded = "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=False))
        lines.append(f"{'*' if cells[0] == default else ' '} {padded}".rstrip())
    return lines


def facts(entry: Entry) -> str:
    """The known values of ``Entry.cells`` in one line."""
    return ", ".join(f"{key} {value}" for key, value in zip(COLUMNS[1:], entry.cells[1:], strict=True) if value)
