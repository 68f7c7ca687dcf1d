"""The networks from the condition to the wave, and how they are run."""
