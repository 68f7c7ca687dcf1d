"""The errors of our own."""

from collections.abc import Mapping

from translator import InputError as InputError


def missing_name(module: str, name: str, replacements: Mapping[str, str]) -> Exception:
    """What the ``__getattr__`` of a module raises: for a name of upstream's, one sentence with its replacement.

    It is an ImportError, because Python would hide the sentence of an AttributeError from ``from … import``.
    """
    if name in replacements:
        return ImportError(f"AudioLDM's {module}.{name} does not exist here: {replacements[name]}")
    return AttributeError(f"module {module!r} has no attribute {name!r}")
