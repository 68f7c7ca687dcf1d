"""From captions and pictures to embedding shards, at any size: the training data of the translators.

reader → fetch → embed → write. A script in ``audiocaps``, ``wit`` or ``conceptual_captions`` names a reader; the rest
is shared.
"""
