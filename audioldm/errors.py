class InputError(ValueError):
    """Bad input by the user; its message is one clear sentence."""
