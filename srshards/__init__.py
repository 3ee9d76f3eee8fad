"""Reads shards of super-resolution training pairs at the speed of memory."""

import sys

if sys.platform == "win32":
    raise ImportError("sr-shards runs on Linux; on Windows, install and use it in WSL 2")

__version__ = "0.1.0"
