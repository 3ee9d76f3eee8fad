"""The process that data workers come from. Standard library only, so that it can be started first of all."""

import multiprocessing
import os
import signal
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

_THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def start_fork_server() -> ForkServerContext:
    """Start the fork server if it is not running, and return the context whose processes come from it.

    Forking the training process itself would copy its threads' locks, and CUDA, into the workers. The server imports
    PyTorch once for all of them, while this process does the same. From it they inherit that Ctrl-C and SIGTERM are
    ignored (they may go to the whole group of processes; the training process decides), and that no library starts
    threads.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainer.stream.loader"])
    former = {name: os.environ.get(name) for name in _THREAD_COUNTS}
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    os.environ.update(dict.fromkeys(_THREAD_COUNTS, "1"))
    try:
        forkserver.ensure_running()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name, value in former.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
    return context
