"""What every engine does: run the job on each task, in any order, and hand back what it returns."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from shardgen.shard.job import BeforeCommit, Report, ShardResult, ShardTask
from srshards.errors import RunError
from srshards.process.shortages import shortage
from srshards.storage.store import StoreError, storage_of

Job = Callable[[ShardTask, Report, BeforeCommit], ShardResult]


class ShardCrash(RunError):
    """A bug met while a shard was built; the message includes the traceback and so has several lines."""


RUN_AGAIN = "Run the same command again: finished shards are kept."


class Engine(Protocol):
    """Runs shard tasks somewhere. `num_workers` of them at once work on this machine and with its disks."""

    @property
    def num_workers(self) -> int: ...

    def run(self, tasks: Sequence[ShardTask], job: Job, report: Report) -> Iterator[ShardResult]:
        """Yield a result per task as they come. RunError names the shard when a worker dies or cannot write.

        Closing the iterator early stops all work at once; shards that are not finished leave no file.
        """
        ...


def attempt(task: ShardTask, job: Job, report: Report, before_commit: BeforeCommit) -> ShardResult | RunError:
    """What a worker process hands back: what the job returns, or the error that ends the run.

    A broken pipe is raised: nobody is left to be told.
    """
    try:
        return job(task, report, before_commit)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        return failure(task, error) or ShardCrash(
            f"shard {task.plan.name} failed, which is a bug in the program:\n{traceback.format_exc()}"
        )


def failure(task: ShardTask, error: Exception) -> RunError | None:
    """What ends the run when a task ends with this error; None for a fault of the program."""
    if isinstance(error, RunError):
        return error
    shard = f"shard {task.plan.name}"
    if reason := shortage(error):
        return RunError(f"cannot make {shard}: {reason}. {RUN_AGAIN}")
    if isinstance(error, StoreError):
        return RunError(f"{shard}: {error} Finished shards are kept.")
    if isinstance(error, OSError):
        place = storage_of(task.config.output).written_to(task.config.output)
        return RunError(
            f"cannot write {shard} in {place}: {error.strerror or error}. Nothing half-written is left. Make room (or "
            "mend what is wrong) and run the same command again: finished shards are kept."
        )
    return None
