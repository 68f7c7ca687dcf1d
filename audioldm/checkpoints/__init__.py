"""Where models are (registry) and how their parts are read (folder)."""
