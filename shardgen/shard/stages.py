"""Worker time by stage of building a shard."""

import contextlib
from collections.abc import Iterator
from time import perf_counter

STAGES = ("read", "decode", "check", "resize", "degrade", "statistics", "encode", "write")


class StageTimes(dict[str, float]):
    """The time of each stage in s."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(STAGES, 0.0))

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage, also if the block raises."""
        start = perf_counter()
        try:
            yield
        finally:
            self[stage] += perf_counter() - start
