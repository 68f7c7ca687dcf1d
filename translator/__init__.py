"""CLIP space → CLAP space: small networks that turn what an image means into what it sounds like.

Independent of the rest of this repository; ``audioldm`` imports it, never the other way round.
"""


class TranslatorError(ValueError):
    """A translator cannot be found, read or used here; the message is one clear sentence."""
