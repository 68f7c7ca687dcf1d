"""Names of embedding spaces, and names that the same spaces had before.

A space is named by its fingerprint, 12 hex digits over projection weights of the model that spans it. CLAP's used to
be taken from the projections of both towers. It is taken from the text tower's now, because some published models have
no audio tower. Translators and shards that carry a former name remain usable.
"""

from __future__ import annotations

import re

SPACE = re.compile(r"[0-9a-z]{1,64}")
_current = {"490663384519": "9514d24e30e0"}  # CLAP of the bundled starter, which its translators still call so


def rename(former: str, current: str) -> None:
    """Note that the space ``current`` was called ``former``."""
    _current[former] = current


def current(space: str) -> str:
    """Today's name of a space."""
    return _current.get(space, space)
