"""The HTML report: curves of several runs in common plots, settings side by side, previews over the steps."""
