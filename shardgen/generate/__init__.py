"""A run of the generator."""
