"""What a run leaves: wavs, their JSON, the manifest of a list."""
