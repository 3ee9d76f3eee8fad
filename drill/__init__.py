"""Faults on purpose, counted."""
