"""The commands: audioldm, audioldm-translator, audioldm-convert."""
