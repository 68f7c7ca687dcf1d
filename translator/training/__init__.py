"""Train translators on pairs of vectors, and record their data and settings."""
