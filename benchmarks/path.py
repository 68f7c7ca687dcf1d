"""Count the files of ours that a run passes through, from main() to the wav.

    python benchmarks/path.py                         # a picture
    python benchmarks/path.py -t "a dog barking"      # any arguments of audioldm

A file counts when one of its functions runs, not when it is merely imported. A hop is a call from one file to another.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = tuple(str(ROOT / package) + "/" for package in ("audioldm", "translator"))
QUICK = ["-dur", "0.5", "--ddim_steps", "2"]


def passed(arguments: list[str]) -> tuple[Counter[str], int]:
    """Calls by file, and the number of hops, of the command with ``arguments``."""
    from audioldm.commands.generate import main

    calls: Counter[str] = Counter()
    hops = 0

    def watch(frame: FrameType, event: str, _: Any) -> None:
        nonlocal hops
        file = frame.f_code.co_filename
        if event != "call" or not file.startswith(PACKAGES) or frame.f_code.co_name in ("<module>", "__getattr__"):
            return  # the import system asks modules for names, too
        above = frame.f_back
        while above and not above.f_code.co_filename.startswith(PACKAGES):
            above = above.f_back
        if above and above.f_code.co_name in ("<module>", "__getattr__"):
            return
        calls[file.removeprefix(f"{ROOT}/")] += 1
        hops += above is not None and above.f_code.co_filename != file

    sys.setprofile(watch)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            status = main(arguments)
    finally:
        sys.setprofile(None)
    if status:
        sys.exit(status)
    return calls, hops


def main() -> None:
    sys.path.insert(0, str(ROOT))
    given = sys.argv[1:] or ["-t", str(ROOT / "examples" / "dog.jpg")]
    with tempfile.TemporaryDirectory() as folder:
        calls, hops = passed([*QUICK, "-s", folder, *given])
    for file, count in calls.most_common():
        print(f"{count:6}  {file}")
    print(f"{len(calls)} files, {hops} hops")


if __name__ == "__main__":
    main()
