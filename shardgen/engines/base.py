"""What every engine does: run the job on each task, in any order, and hand back what it returns."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from shardgen.errors import RunError
from shardgen.scratch import scratch_root
from shardgen.shard_job import Report, ShardResult, ShardTask
from shardgen.store import StoreError, is_local

Job = Callable[[ShardTask, Report], ShardResult]

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


def attempt(task: ShardTask, job: Job, report: Report) -> ShardResult | RunError:
    """What a worker process hands back: what the job returns, or the error that ends the run.

    A broken pipe is raised: nobody is left to be told.
    """
    try:
        return job(task, report)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except StoreError as error:
        return RunError(store_failed(task, error))
    except OSError as error:
        return RunError(cannot_write(task, error))
    except RunError as error:
        return error
    except Exception:
        return RunError(f"shard {task.plan.name} failed, which is a fault of the program:\n{traceback.format_exc()}")


def cannot_write(task: ShardTask, error: OSError) -> str:
    place = task.config.output if is_local(task.config.output) else f"{scratch_root()} (TMPDIR), before it is sent"
    return (
        f"cannot write shard {task.plan.name} in {place}: {error.strerror or error}. Nothing half-written "
        "is left. Make room (or mend what is wrong) and run the same command again: finished shards are kept."
    )


def store_failed(task: ShardTask, error: StoreError) -> str:
    return f"shard {task.plan.name}: {error} {RUN_AGAIN}"
