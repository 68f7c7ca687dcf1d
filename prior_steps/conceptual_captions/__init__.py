"""Conceptual Captions (Sharma et al., 2018): pictures of the web through CLIP, their captions through CLAP."""
