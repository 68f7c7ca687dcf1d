"""Names: of files that are made from a prompt, and of what the user gave, as a message may show it."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with "?" for what a terminal would not show as it is, and not more than 200 characters of it."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= 200 else shown[:199] + "…"
