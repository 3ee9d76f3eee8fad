"""UTF-8 file names regardless of the locale, so that manifests have the same bytes everywhere."""

import os
import sys


def require_utf8() -> None:
    """Restart this process in Python's UTF-8 mode, unless its file system encoding is UTF-8 already.

    The encoding cannot be changed at run time. Child processes inherit the mode through the environment.
    """
    if sys.getfilesystemencoding() != "utf-8":
        command = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONUTF8": "1"})
