"""A page about runs: their figures laid over each other, their settings side by side, their previews through time."""
