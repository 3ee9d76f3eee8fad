"""Reads shards of super-resolution training pairs at the speed of memory."""

__version__ = "0.1.0"
