"""Images through a network."""
