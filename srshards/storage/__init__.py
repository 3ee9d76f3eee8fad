"""Atomic local files and object stores behind one interface."""
