"""Engines for one machine: in this process, or in a pool of worker processes."""

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

from shardgen.engines.base import RUN_AGAIN, Job, as_run_error, run_job
from shardgen.shard.job import Progress, Report, ShardResult, ShardTask, limit_threads
from srshards.errors import RunError, UsageError
from srshards.process.fork_server import TERMINAL_SIGNALS, start_fork_server
from srshards.process.shortages import too_many_workers
from srshards.storage.store import storage_of

_REPORT_EVERY_S = 0.1
_FILES_PER_WORKER = 3  # open in this process for each worker


class SerialEngine:
    """Builds shards in this process, for debugging and tests."""

    num_workers = 1

    def run(self, tasks: Sequence[ShardTask], job: Job, report: Report) -> Iterator[ShardResult]:
        for task in tasks:
            try:
                result = job(task, report, _always_commit)
            except RunError:
                raise
            except Exception as error:
                if (run_error := as_run_error(task, error)) is None:
                    raise
                raise run_error from None
            yield result


def _always_commit() -> None:
    """Do nothing: this process is the run, so it cannot have ended."""


class PoolEngine:
    """Builds shards in `num_workers` processes, each with one task at a time.

    `ProcessPoolExecutor` neither reports which task a dead worker had nor can be stopped immediately. Workers are
    forked from a fork server, which is small and has no threads, unlike this process.
    """

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers

    def run(self, tasks: Sequence[ShardTask], job: Job, report: Report) -> Iterator[ShardResult]:
        pending = list(reversed(tasks))
        workers = self._start(min(self.num_workers, len(pending)), job)
        try:
            for worker in workers:
                worker.assign(pending.pop())
            while any(worker.task for worker in workers):
                for worker in _ready(workers):
                    message = worker.receive()
                    if isinstance(message, Progress):
                        report(message)
                        continue
                    yield message
                    worker.assign(pending.pop() if pending else None)
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

    def assign(self, task: ShardTask | None) -> None:
        self.task = task
        if task:
            with suppress(BrokenPipeError):  # the worker is dead: `receive` reports it
                self.connection.send(task)

    def receive(self) -> ShardResult | Progress:
        assert self.task is not None
        try:
            message = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            raise RunError(_worker_died(self.task, self.process.exitcode)) from None
        if isinstance(message, Exception):
            raise message
        assert isinstance(message, (ShardResult, Progress))
        return message


def _ready(workers: list[_Worker]) -> list[_Worker]:
    """Wait for and return the busy workers that have sent a message or died."""
    ready = wait([worker.connection for worker in workers if worker.task])
    return [worker for worker in workers if worker.connection in ready]


def _work(connection: "Connection[Any, Any]", job: Job) -> None:
    """Run a worker process: receive tasks and send results until the parent exits."""
    limit_threads()
    follows_parent = False
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task = connection.recv()
            if not (follows_parent or storage_of(task.config.output).is_local):
                follows_parent = True
                Thread(target=_exit_with_parent, name="parent", daemon=True).start()
            reporter = _Reporter(connection)
            connection.send(run_job(task, job, reporter.report, reporter.before_commit))


def _exit_with_parent() -> None:
    """Exit as soon as the parent does, even during an upload, which could replace the shard of a later run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


class _Reporter:
    """Sends progress at intervals, and ends the worker with BrokenPipeError when its parent has exited.

    A worker that outlived its parent could publish a shard while the next run is writing to the same output.
    """

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection
        self._pending = Progress()
        self._next_s = monotonic() + _REPORT_EVERY_S

    def report(self, progress: Progress) -> None:
        self._exit_if_orphaned()
        self._pending += progress
        if monotonic() >= self._next_s:
            self._send()

    def before_commit(self) -> None:
        self._exit_if_orphaned()
        self._send()  # all progress, before the result

    def _send(self) -> None:
        self._connection.send(self._pending)
        self._pending = Progress()
        self._next_s = monotonic() + _REPORT_EVERY_S

    @staticmethod
    def _exit_if_orphaned() -> None:
        parent = multiprocessing.parent_process()
        if parent and not parent.is_alive():
            raise BrokenPipeError


def _worker_died(task: ShardTask, exit_code: int | None) -> str:
    how = f"was killed by signal {-exit_code}" if exit_code and exit_code < 0 else f"exited with code {exit_code}"
    return (
        f"the worker process building shard {task.plan.name} {how}. If the machine ran out of memory, pass fewer "
        f"--workers. {RUN_AGAIN}"
    )
