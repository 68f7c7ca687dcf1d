"""What ``audioldm --list`` says: models and translators, and which of them are installed."""

from __future__ import annotations

from translator import zoo

from .. import registry
from ..checkpoints import download
from ..checkpoints.layout import open_folder
from ..checkpoints.published import UPSTREAM
from ..checkpoints.spaces import clap_fingerprint, clip_fingerprint
from ..errors import InputError
from ..translators import home


def listing() -> list[str]:
    """Lines of text: each bundled model with its size, and under it the translators that fit it, with what is known;
    then the models that can be downloaded. No server is asked."""
    entries = [entry for root in (home(), registry.models_dir() / "translators") for entry in zoo.available(root)]
    lines, shown = ["models and their translators (* default):"], set()
    for name in registry.names():
        try:
            folder = open_folder(registry.models_dir() / name)
            spaces = clip_fingerprint(folder.weights("clip")), clap_fingerprint(folder.weights("clap"))
        except InputError as error:
            lines.append(f"  {name}: not usable: {error}")
            continue
        size = sum(path.stat().st_size for path in folder.files()) / 1e6
        star = "*" if name == registry.DEFAULT_MODEL else " "
        lines.append(
            f"{star} {name}: installed, {size:.0f} MB, CLIP space {spaces[0]}, CLAP space {spaces[1]}"
        )
        for entry in entries:
            if entry.fits(*spaces):
                shown.add(entry.path)
                star = "*" if entry.name == folder.index.get("default_translator") else " "
                lines.append(f"    {star} {_described(entry)}")
    for entry in entries:
        if entry.path not in shown:
            lines.append(f"  of no installed model: {_described(entry)}, CLIP space {entry.spaces[0]}")
    return lines + _published()


def _published() -> list[str]:
    """Lines on AudioLDM's own checkpoints, with what is there of them."""
    lines = [f"AudioLDM's models, downloaded at first use to {download.cache_dir()} ({download.CACHE_VARIABLE}):"]
    for name, known in UPSTREAM.items():
        lines.append(f"  {name}: {download.amount(known.about)}, {known.licence}, {download.state(name)}")
    hub = ", ".join(known.repo for known in UPSTREAM.values() if known.repo)
    return [*lines, f"  from the hub, without ranking and sounds as prompts: {hub}"]


def _described(entry: zoo.Entry) -> str:
    facts = zoo.facts(entry)
    return f"{entry.name} ({facts})" if facts else entry.name
