"""How commands are called in the environment of this process, so that those in a message can be pasted."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def program(name: str) -> str:
    """How to start our command ``name``: its name if it is on PATH, otherwise its file (in a checkout: in bin/)."""
    installed = Path(sys.executable).parent / name
    found = shutil.which(name)
    if found and installed.exists() and os.path.samefile(found, installed):
        return name
    in_checkout = Path(__file__).resolve().parents[1] / "bin" / name
    if not in_checkout.is_file():
        return shlex.quote(str(installed))
    here = os.path.relpath(in_checkout)
    return shlex.quote(str(in_checkout) if here.startswith(os.pardir) else here)


def pip_install(package: str) -> str:
    """The command that installs ``package`` for this Python."""
    return f"{shlex.quote(sys.executable)} -m pip install {shlex.quote(package)}"
