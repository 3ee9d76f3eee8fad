"""What every engine does: run the job on each task, in any order, and hand back what it returns."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from shardgen.shard_job import Report, ShardResult, ShardTask

Job = Callable[[ShardTask, Report], ShardResult]


class Engine(Protocol):
    """Runs shard tasks somewhere. `num_workers` of them at once work on this machine and with its disks."""

    @property
    def num_workers(self) -> int: ...

    def run(self, tasks: Sequence[ShardTask], job: Job, report: Report) -> Iterator[ShardResult]:
        """Yield a result per task as they come. RunError names the shard when a worker dies or cannot write.

        Closing the iterator early stops all work at once; shards that are not finished leave no file.
        """
        ...
