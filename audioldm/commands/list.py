"""``audioldm --list``: tables of the models and of the translators, and which are installed."""

from __future__ import annotations

from translator import settings, zoo

from .. import registry
from ..checkpoints import download
from ..checkpoints.layout import CACHE_VARIABLE, cache_dir, clap_fingerprint, clip_fingerprint, open_folder
from ..checkpoints.published import LICENCE, UPSTREAM
from ..errors import InputError


def listing() -> list[str]:
    """The lines of the tables: bundled models, each with the translators that fit it; then AudioLDM's checkpoints.

    No server is asked.
    """
    roots = registry.translators_home(), registry.models_dir() / "translators"
    entries = [entry for root in roots for entry in zoo.available(root)]
    lines, shown = ["Bundled models and their translators (* default):"], set()
    for name in registry.model_names():
        try:
            folder = open_folder(registry.models_dir() / name)
            spaces = clip_fingerprint(folder.weights("clip")), clap_fingerprint(folder.weights("clap"))
        except InputError as error:
            lines.append(f"  {name}: not usable: {error}")
            continue
        size = sum(path.stat().st_size for path in folder.files()) / 1e6
        star = "*" if name == registry.DEFAULT_MODEL else " "
        lines += [f"{star} {name}: installed, {size:.0f} MB, CLIP space {spaces[0]}, CLAP space {spaces[1]}", ""]
        fitting = [entry for entry in entries if entry.fits(*spaces)]
        shown |= {entry.path for entry in fitting}
        lines += [f"    {line}" for line in zoo.table(fitting, folder.index.get("default_translator"))] + [""]
    others = [entry for entry in entries if entry.path not in shown]
    if others:
        lines += ["Translators of models that are not installed:", ""]
        lines += [f"    {line}" for line in zoo.table(others)] + [""]
    return lines + _published()


def unknown_yet(name: str) -> str | None:
    """Why the spaces of the model ``name`` are known only after a download; None if they are known."""
    if not registry.is_here(name):
        return f"{name} is not downloaded, so its spaces are not known yet; {settings.MEMORY} works with any model"
    if not registry.build_model(model_name=name).has_clip:
        return f"{name} is downloaded, but not its CLIP; both are after the first picture"
    return None


def listing_of(name: str) -> list[str]:
    """The lines of the table of the translators for the model ``name``. No server is asked. Raises InputError."""
    if why := unknown_yet(name):
        return [why]
    model = registry.build_model(model_name=name)
    clip, clap = model.spaces
    entries = (entry for root in dict.fromkeys(registry.translator_roots(model)) for entry in zoo.available(root))
    fitting = {entry.name: entry for entry in entries if entry.fits(clip, clap)}
    missing = {} if settings.MEMORY in fitting else {settings.MEMORY: "made at first use"}
    table = zoo.table(fitting.values(), registry.default_name(model), missing)
    return [f"{name}: CLIP space {clip}, CLAP space {clap}; its translators (* default):", "", *table]


def _published() -> list[str]:
    """A table of AudioLDM's own checkpoints, and which are downloaded."""
    rows = [(name, download.format_size(known.about), known.repo or "", download.state(name))
            for name, known in UPSTREAM.items()]  # fmt: skip
    rows = [("name", "size", "on the hub, without CLAP's audio tower", "state"), *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"AudioLDM's checkpoints, licence {LICENCE},",
        f"downloaded at first use to {cache_dir()} ({CACHE_VARIABLE}):",
        "",
        *("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
    ]
