"""AudioLDM's published checkpoint files: where they are, how large, under which licence."""

from __future__ import annotations

from dataclasses import dataclass

from .layout import ModelFolder

LICENCE = "CC BY-NC-SA 4.0 (no commercial use)"
# What a model of the hub cannot do; {original} is the name of the same one with both towers.
TEXT_ONLY = (
    "{model} has only CLAP's text tower, as the hub's AudioLDM repositories do, so that sounds can be neither ranked "
    "(-n above 1) nor taken as a prompt (-f); the audio tower is in the original checkpoint: --model_name {original} "
    "has it, and clap/ of the folder that audioldm-convert makes of it may be copied into this one"
)


@dataclass(frozen=True)
class Checkpoint:
    """One of AudioLDM's published checkpoint files."""

    url: str
    about: int  # bytes, for messages: measured on the same networks, with moving averages, where not published
    bytes: int | None = None  # its exact size, where it is known
    md5: str | None = None  # the publisher's, 32 hex digits, where it is known
    repo: str | None = None  # the hub's repository with the same weights
    licence: str = LICENCE


_ZENODO = "https://zenodo.org/records/{}/files/{}?download=1"

# The records are those that AudioLDM's own code names. Zenodo publishes size and md5 of every file, but only those of
# the two -m- files could be looked up; of the others, download.py records the hash of the first download.
UPSTREAM = {
    "audioldm-s-full": Checkpoint(
        _ZENODO.format(7600541, "audioldm-s-full"), about=2_560_000_000, repo="cvssp/audioldm"
    ),
    "audioldm-s-full-v2": Checkpoint(
        _ZENODO.format(7698295, "audioldm-full-s-v2.ckpt"), about=2_560_000_000, repo="cvssp/audioldm-s-full-v2"
    ),
    "audioldm-m-full": Checkpoint(
        _ZENODO.format(7813012, "audioldm-m-full.ckpt"),
        about=4_571_683_377,
        bytes=4_571_683_377,
        md5="46bad9f176651404b3cf1484942749b9",
        repo="cvssp/audioldm-m-full",
    ),
    "audioldm-l-full": Checkpoint(
        _ZENODO.format(7698295, "audioldm-full-l.ckpt"), about=6_990_000_000, repo="cvssp/audioldm-l-full"
    ),
    "audioldm-s-text-ft": Checkpoint(_ZENODO.format(7813012, "audioldm-s-text-ft.ckpt"), about=2_560_000_000),
    "audioldm-m-text-ft": Checkpoint(
        _ZENODO.format(7813012, "audioldm-m-text-ft.ckpt"),
        about=4_571_676_474,
        bytes=4_571_676_474,
        md5="036bc9b547a50f78b960ef8f14d0e1fb",
    ),
}


def explain_text_only(folder: ModelFolder) -> str:
    """The sentence for a user whose model has no audio tower (``folder.hears`` is False) and needs one."""
    original = next((name for name, known in UPSTREAM.items() if known.repo == folder.name), "audioldm-s-full-v2")
    return TEXT_ONLY.format(model=folder.name, original=original)
