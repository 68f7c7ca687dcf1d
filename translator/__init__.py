"""CLIP space → CLAP space: small networks that turn what an image means into what it sounds like.

Independent of the rest of this repository; ``audioldm`` imports it, never the other way round.
"""


class InputError(ValueError):
    """Bad input by the user; its message is one clear sentence. The one such class of all three packages."""


TranslatorError = InputError  # its former name in this package
