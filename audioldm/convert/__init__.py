"""Original checkpoints → model folders, and the proof that they compute the same."""
