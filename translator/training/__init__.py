"""Train translators on pairs of vectors, and record what they were made of."""
