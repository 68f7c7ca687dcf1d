"""WIT (Srinivasan et al., 2021): Wikipedia's pictures through CLIP, their captions through CLAP."""
