"""File names are UTF-8, whatever the locale says: manifests hold the same bytes everywhere."""

import os
import sys


def require_utf8() -> None:
    """Start this process again in Python's UTF-8 mode, unless its file system encoding is UTF-8 already.

    The encoding cannot be changed later. Processes that this one starts inherit the mode by the environment.
    """
    if sys.getfilesystemencoding() != "utf-8":
        command = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONUTF8": "1"})
