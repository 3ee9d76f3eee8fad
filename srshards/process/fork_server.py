"""A fork server for worker processes. Standard library only, so that it can be started early."""

import io
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from multiprocessing import context, forkserver, popen_forkserver, reduction, spawn, util
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from srshards.process.shortages import signals_ignored_by_children

_MAX_TMPDIR_BYTES = 60
# Signals that may be sent to a process group; only the parent handles them.
TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGHUP)
GROUP_SIGNALS = (*TERMINAL_SIGNALS, signal.SIGTERM)
_THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_lock = threading.RLock()  # environment and signal handlers are process-wide
_server = forkserver.ForkServer()


def start_fork_server(preload: str, ignored: Sequence[signal.Signals]) -> ForkServerContext:
    """Start the fork server if it is not running, and return a multiprocessing context that uses it.

    Forking this process directly would copy the locks of its threads, and CUDA, into the workers. The server has no
    threads; it imports the module `preload` once for all workers, in parallel with this process. Workers ignore
    the `ignored` signals (those sent to the process group, which only the parent handles) and inherit settings that
    keep libraries from starting one thread per core. The server of `multiprocessing` itself lacks both.
    """
    with _lock, _one_thread_each(), _short_temporary_folder(), _signals_disabled(ignored):
        _server.set_forkserver_preload([preload])
        _server.ensure_running()
    return _Context()


def may_use_workers(arguments: Sequence[str]) -> bool:
    """Return whether a command line may need worker processes: without `--workers 0`, which needs none."""
    return "--workers=0" not in arguments and ("--workers", "0") not in pairwise(arguments)


class ServedProcess(ForkServerProcess):
    """A process forked by this module's server. It does not import the main program, unlike others.

    All that it runs is in modules of this project, and a program that imports PyTorch takes seconds to import.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - the name that multiprocessing gives it
        return _Popen(process_obj)


class _Popen(popen_forkserver.Popen):
    _fds: list[int]

    def _launch(self, process_obj: Any) -> None:
        """Like the method of the base class, but with this module's server and without the main program."""
        preparation = spawn.get_preparation_data(process_obj._name)
        for name in ("init_main_from_name", "init_main_from_path"):
            preparation.pop(name, None)
        content = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            reduction.dump(preparation, content)
            reduction.dump(process_obj, content)
        finally:
            context.set_spawning_popen(None)
        with _lock:
            self.sentinel, writer = _server.connect_to_new_process(self._fds)
        self.finalizer = util.Finalize(self, _close, (os.dup(writer), self.sentinel))
        with open(writer, "wb") as pipe:
            pipe.write(content.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class _Context(ForkServerContext):
    Process = ServedProcess


def _reset() -> None:
    """Reset the server and the lock in a forked child, which cannot use its parent's server or release its lock."""
    global _lock, _server
    _lock, _server = threading.RLock(), forkserver.ForkServer()


os.register_at_fork(after_in_child=_reset)


def end_with_parent() -> None:
    """End this process when the parent dies or sends SIGTERM, and at no other time.

    The parent of the process itself is the fork server. A SIGTERM may also be sent to the process group; the parent
    decides what to do then.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None
    if hasattr(signal, "sigwaitinfo"):  # not on macOS, where a worker ends at any SIGTERM
        # Before starting a thread, which inherits the mask. An ignored signal cannot be waited for.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _in_background(_exit_after, partial(_wait_for_sigterm, parent.pid))
    _in_background(_exit_after, parent.join)


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
    """Limit libraries to one thread in processes started in the block."""
    previous = {name: os.environ.get(name) for name in _THREAD_COUNTS}
    os.environ.update(dict.fromkeys(_THREAD_COUNTS, "1"))
    try:
        yield
    finally:
        for name, value in previous.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


@contextmanager
def _signals_disabled(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Make processes started in the block ignore or block these signals."""
    if threading.current_thread() is threading.main_thread():
        with signals_ignored_by_children(*signals):
            yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # inherited; only the main thread can ignore signals
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


@contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """Use /tmp in the block if TMPDIR is too long: socket paths are limited to about 100 bytes."""
    previous = tempfile.gettempdir()
    if len(os.fsencode(previous)) > _MAX_TMPDIR_BYTES and os.access("/tmp", os.W_OK):
        tempfile.tempdir = "/tmp"
    try:
        yield
    finally:
        tempfile.tempdir = previous
