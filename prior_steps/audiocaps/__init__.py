"""AudioCaps (Kim et al., 2019): 57,188 captions of sounds, through the text towers of CLIP and CLAP."""
