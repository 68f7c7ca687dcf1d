"""Translators: small networks from CLIP's space, of pictures, to CLAP's space, of sounds.

This package imports nothing of ``audioldm`` or ``prior_steps``; both import it.
"""


class InputError(ValueError):
    """Bad input by the user; the message is one clear sentence. All three packages raise this class."""
