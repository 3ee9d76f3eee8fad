"""The process that all others come from. Standard library only, so that it can be started first of all."""

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from srshards.process.shortages import signals_ignored_by_children

_MAX_TMPDIR_BYTES = 60
# What may be sent to a whole group of processes, of which the parent alone decides what it means.
TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGHUP)
GROUP_SIGNALS = (*TERMINAL_SIGNALS, signal.SIGTERM)
_THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_lock = threading.RLock()  # environment and signals are the whole process's
_server = forkserver.ForkServer()


def start_fork_server(preload: str, ignored: Sequence[signal.Signals]) -> ForkServerContext:
    """Start the fork server if it is not running, and return the context whose processes come from it.

    Forking this process itself would copy its threads' locks, and CUDA, into the workers. The server has no threads; it
    imports the module `preload` once for all workers, while this process imports the same. From it they inherit that
    signals are `ignored` (they may go to the whole group of processes; the parent decides) and that no library starts
    threads, one per core, when it is imported. It is another server than the one of `multiprocessing`, whose processes
    inherit nothing of that.
    """
    with _lock, _one_thread_each(), _short_temporary_folder(), _kept_from_children(ignored):
        _server.set_forkserver_preload([preload])
        _server.ensure_running()
    return _Context()


class ServedProcess(ForkServerProcess):
    """A process that comes from the server of this module."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - the name that multiprocessing gives it
        from multiprocessing.popen_forkserver import Popen

        with _lock:
            former = forkserver.connect_to_new_process
            forkserver.connect_to_new_process = _server.connect_to_new_process
            try:
                return Popen(process_obj)
            finally:
                forkserver.connect_to_new_process = former


class _Context(ForkServerContext):
    Process = ServedProcess


def _begin_again() -> None:
    """No server yet: a forked child may not wait for its parent's, and nobody is there to release the lock."""
    global _lock, _server
    _lock, _server = threading.RLock(), forkserver.ForkServer()


os.register_at_fork(after_in_child=_begin_again)


def end_with_parent() -> None:
    """End this process when the training process is dead or ends it, and at no other time.

    PyTorch's own watch over data workers sees the fork server, which lives on. SIGTERM may also go to the whole group
    of processes; what that means is for the training process to decide.
    """
    training = multiprocessing.parent_process()
    assert training is not None and training.pid is not None
    if hasattr(signal, "sigwaitinfo"):  # not on macOS, where a worker ends at any SIGTERM
        # Before any thread is started: they inherit it. And a signal that is ignored cannot be waited for.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _in_background(_exit_after, partial(_wait_for_sigterm, training.pid))
    _in_background(_exit_after, training.join)


def _in_background(task: Callable[..., object], *args: object) -> None:
    threading.Thread(target=task, args=args, daemon=True).start()


def _exit_after(wait: Callable[[], object]) -> None:
    wait()
    os._exit(1)


def _wait_for_sigterm(sender: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != sender:
        pass


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Libraries of processes that are started inside have one thread each."""
    former = {name: os.environ.get(name) for name in _THREAD_COUNTS}
    os.environ.update(dict.fromkeys(_THREAD_COUNTS, "1"))
    try:
        yield
    finally:
        for name, value in former.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


@contextmanager
def _kept_from_children(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Processes that are started inside do not end by these signals."""
    if threading.current_thread() is threading.main_thread():
        with signals_ignored_by_children(*signals):
            yield
        return
    former = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # is inherited; only the main thread may ignore signals
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


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
