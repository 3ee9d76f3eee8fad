"""Detect a fork without a system call: `os.getpid` takes microseconds on some systems."""

import os


class _Process:
    """Identity of a process."""


_current = _Process()


def this_process() -> object:
    """Return an object that is the same in each call in a process, and another one in a forked child."""
    return _current


def _renew() -> None:
    global _current
    _current = _Process()


os.register_at_fork(after_in_child=_renew)
