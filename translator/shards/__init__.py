"""Files of pairs: a CLIP vector and the CLAP vector of the same thing."""
