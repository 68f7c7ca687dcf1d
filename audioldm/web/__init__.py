"""The page: what the command does, in a browser and for programs. Needs Gradio, the extra ``web``."""
