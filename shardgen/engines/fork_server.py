"""The process that worker processes come from. Standard library only, so that it can be started first of all."""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

from shardgen.process import signals_ignored_by_children

_MAX_TMPDIR_BYTES = 60
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def start_fork_server() -> ForkServerContext:
    """Start the fork server if it is not running, and return the context whose processes come from it.

    It has no threads and holds nothing of this process; it imports NumPy and OpenCV once for all workers, at the same
    time as this process does. It inherits, and so does every worker, that Ctrl-C and SIGHUP are ignored (they go to all
    processes of a terminal, but the parent alone decides what they mean) and that BLAS starts no threads (it would when
    NumPy is imported, one per core).
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["shardgen.engines.local"])
    before = {name: os.environ[name] for name in _BLAS_THREADS if name in os.environ}
    os.environ.update(dict.fromkeys(_BLAS_THREADS, "1"))
    try:
        with _short_temporary_folder(), signals_ignored_by_children(signal.SIGINT, signal.SIGHUP):
            forkserver.ensure_running()
    finally:
        for name in _BLAS_THREADS:
            del os.environ[name]
        os.environ.update(before)
    return context


@contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """The names of sockets have room for about a hundred letters, of which a TMPDIR may take too many."""
    former = tempfile.gettempdir()
    if len(os.fsencode(former)) > _MAX_TMPDIR_BYTES and os.access("/tmp", os.W_OK):
        tempfile.tempdir = "/tmp"
    try:
        yield
    finally:
        tempfile.tempdir = former
