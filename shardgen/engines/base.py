"""The interface of engines, and the errors that end a run."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from shardgen.shard.job import BeforeCommit, Report, ShardResult, ShardTask
from srshards.errors import RunError, UsageError
from srshards.process.shortages import shortage
from srshards.storage.store import StoreError, storage_of

Job = Callable[[ShardTask, Report, BeforeCommit], ShardResult]


class ShardCrash(RunError):
    """An unexpected exception (a bug) while building a shard. The multi-line message includes the traceback."""


RUN_AGAIN = "Run the same command again: finished shards are kept."


class Engine(Protocol):
    """Runs shard tasks in any order. `num_workers` counts those on this machine, which use its disks."""

    @property
    def num_workers(self) -> int: ...

    def run(self, tasks: Sequence[ShardTask], job: Job, report: Report) -> Iterator[ShardResult]:
        """Yield a result per task, in order of completion. RunError when a worker dies or a shard cannot be written.

        Closing the iterator early stops all work immediately and leaves no file of unfinished shards.
        """
        ...


def run_job(task: ShardTask, job: Job, report: Report, before_commit: BeforeCommit) -> ShardResult | RunError:
    """Return the job's result, or the error that ends the run, for a worker process to send to its parent.

    Connection errors are raised, because they mean that the parent has exited.
    """
    try:
        return job(task, report, before_commit)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        return as_run_error(task, error) or ShardCrash(
            f"shard {task.plan.name} failed, which is a bug in the program:\n{traceback.format_exc()}"
        )


def as_run_error(task: ShardTask, error: Exception) -> RunError | None:
    """Convert the error of a task to the RunError that ends the run; None if the error is a bug."""
    if isinstance(error, RunError):
        return error
    shard = f"shard {task.plan.name}"
    if reason := shortage(error):
        return RunError(f"cannot build {shard}: {reason}. {RUN_AGAIN}")
    if isinstance(error, StoreError):
        return RunError(f"{shard}: {error}. Finished shards are kept.")
    if isinstance(error, UsageError):  # an input that was replaced since it was listed
        return RunError(f"cannot build {shard}: {error}. {RUN_AGAIN}")
    if isinstance(error, OSError):
        folder = storage_of(task.config.output).written_to(task.config.output)
        return RunError(
            f"cannot write {shard} in {folder}: {error.strerror or error}. No partial files are left. Free some disk "
            f"space, or fix the cause. {RUN_AGAIN}"
        )
    return None
