"""Encoders: text, sound and image → unit vectors in CLAP space."""
