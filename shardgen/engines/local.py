"""The engines of one machine: in this process, or in a pool of worker processes."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from threading import Thread
from time import monotonic
from typing import Any

from shardgen.engines.base import RUN_AGAIN, Job, attempt, failure
from shardgen.shard.job import Progress, Report, ShardResult, ShardTask, limit_threads
from srshards.errors import RunError, UsageError
from srshards.process.fork_server import TERMINAL_SIGNALS, start_fork_server
from srshards.process.shortages import too_many_workers
from srshards.storage.store import storage_of

_REPORT_EVERY_S = 0.1
_FILES_PER_WORKER = 3  # that this process has open to talk to it


class SerialEngine:
    """Everything in this process: for debugging and for tests."""

    num_workers = 1

    def run(self, tasks: Sequence[ShardTask], job: Job, report: Report) -> Iterator[ShardResult]:
        for task in tasks:
            try:
                result = job(task, report, _goes_on)
            except RunError:
                raise
            except Exception as error:
                if (ended := failure(task, error)) is None:
                    raise
                raise ended from None  # it says all of it
            yield result


def _goes_on() -> None:
    """The run cannot have ended: it is this process."""


class PoolEngine:
    """`num_workers` processes, each with one task at a time.

    A plain `ProcessPoolExecutor` does not tell which task a dead worker had, nor can it be stopped at once. Workers
    come from a fork server: it is small and has no threads, whatever the parent holds.
    """

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers

    def run(self, tasks: Sequence[ShardTask], job: Job, report: Report) -> Iterator[ShardResult]:
        waiting = list(reversed(tasks))
        workers = self._start(min(self.num_workers, len(waiting)), job)
        try:
            for worker in workers:
                worker.give(waiting.pop())
            while any(worker.task for worker in workers):
                for worker in _ready(workers):
                    message = worker.receive()
                    if isinstance(message, Progress):
                        report(message)
                        continue
                    yield message
                    worker.give(waiting.pop() if waiting else None)
        finally:
            for worker in workers:
                worker.process.kill()
            for worker in workers:
                worker.process.join()

    @staticmethod
    def _start(count: int, job: Job) -> list["_Worker"]:
        if reason := too_many_workers(count, _FILES_PER_WORKER):
            raise UsageError(reason)
        context = start_fork_server("shardgen.engines.local", TERMINAL_SIGNALS)
        workers = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, job), daemon=True)
            process.start()
            theirs.close()
            workers.append(_Worker(process, ours))
        return workers


@dataclass
class _Worker:
    process: ForkServerProcess
    connection: "Connection[Any, Any]"
    task: ShardTask | None = None

    def give(self, task: ShardTask | None) -> None:
        self.task = task
        if task:
            with suppress(BrokenPipeError):  # dead already: `receive` says so
                self.connection.send(task)

    def receive(self) -> ShardResult | Progress:
        assert self.task is not None
        try:
            message = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            raise RunError(_died(self.task, self.process.exitcode)) from None
        if isinstance(message, Exception):
            raise message
        assert isinstance(message, (ShardResult, Progress))
        return message


def _ready(workers: list[_Worker]) -> list[_Worker]:
    """Busy workers that have something to say; a dead one's closed pipe counts as saying so."""
    ready = wait([worker.connection for worker in workers if worker.task])
    return [worker for worker in workers if worker.connection in ready]


def _work(connection: "Connection[Any, Any]", job: Job) -> None:
    """A worker's life: take a task, do it, send what came of it, until the parent is gone."""
    limit_threads()
    follows_parent = False
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task = connection.recv()
            if not (follows_parent or storage_of(task.config.output).is_local):
                follows_parent = True
                Thread(target=_end_with_parent, name="parent", daemon=True).start()
            reporter = _Reporter(connection)
            connection.send(attempt(task, job, reporter.report, reporter.before_commit))


def _end_with_parent() -> None:
    """Sending a shard takes a while; one that an orphan has sent might come to lie under the marker of a later run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


class _Reporter:
    """Sends progress now and then, and ends the worker with BrokenPipeError when its parent is gone.

    A worker that outlived its parent might put a shard in place under the eyes of the next run.
    """

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection
        self._pending = Progress()
        self._next_s = monotonic() + _REPORT_EVERY_S

    def report(self, progress: Progress) -> None:
        self._end_if_alone()
        self._pending += progress
        if monotonic() >= self._next_s:
            self._send()

    def before_commit(self) -> None:
        self._end_if_alone()
        self._send()  # all of it, before the result

    def _send(self) -> None:
        self._connection.send(self._pending)
        self._pending = Progress()
        self._next_s = monotonic() + _REPORT_EVERY_S

    @staticmethod
    def _end_if_alone() -> None:
        parent = multiprocessing.parent_process()
        if parent and not parent.is_alive():
            raise BrokenPipeError


def _died(task: ShardTask, exit_code: int | None) -> str:
    how = f"was killed by signal {-exit_code}" if exit_code and exit_code < 0 else f"ended with exit code {exit_code}"
    return (
        f"the worker process that was making shard {task.plan.name} {how}. If the machine ran out of memory, use fewer "
        f"--workers. {RUN_AGAIN}"
    )
