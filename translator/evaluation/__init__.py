"""Judge translators by photographs whose class is known."""
