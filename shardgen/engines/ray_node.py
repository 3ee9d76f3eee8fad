"""What happens on a node of a Ray cluster: does it see what the run's own machine sees, and then the shard."""

import os
import platform
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import ray

from shardgen.degradation.degrade import libraries
from shardgen.engines.base import Job, attempt
from shardgen.planning.sources import Photo
from shardgen.shard.job import Progress, ShardResult, ShardTask, limit_threads
from srshards import __version__
from srshards.errors import RunError
from srshards.format import Address
from srshards.storage.store import local_path, storage_of

_REPORT_EVERY_S = 1.0


@dataclass(frozen=True)
class Made:
    """A finished shard, and all that its maker did for it."""

    result: ShardResult
    progress: Progress


@dataclass(frozen=True)
class Unlike:
    """Photos that a node does not see as listed: their sizes there in bytes, None where it cannot read one."""

    node: str
    sizes: dict[str, int | None]


class Board:
    """Where tasks leave how far they are and the run looks it up. An actor on the run's own machine."""

    def __init__(self) -> None:
        self._news: dict[str, Progress] = {}

    def put(self, shard: str, progress: Progress) -> None:
        self._news[shard] = progress

    def take(self) -> dict[str, Progress]:
        """What is new since it was last asked, by shard: all that the shard's present maker did."""
        news, self._news = self._news, {}
        return news


def versions() -> dict[str, str]:
    """Whatever decides the bytes of a shard, apart from photos and settings."""
    return {"python": platform.python_version().rpartition(".")[0], "sr-shards": __version__, **libraries()}


def unlike_listed(root: Path, photos: Sequence[Photo]) -> dict[str, int | None]:
    """The photos below `root` that are not there with the size that was listed, or cannot be read: their sizes now."""
    sizes = {photo.path: readable_size(root / photo.path) for photo in photos if photo.size >= 0}
    return {photo.path: sizes[photo.path] for photo in photos if sizes.get(photo.path, photo.size) != photo.size}


def readable_size(path: Path) -> int | None:
    """Size in bytes; None for a file that this process cannot read."""
    try:
        size = path.stat().st_size
    except OSError:
        return None
    return size if os.access(path, os.R_OK) else None


def make(
    task: ShardTask, job: Job, board: Any, mark: Path | None, expected: dict[str, str], compare: bool
) -> Made | Unlike | RunError:
    """One Ray task. `mark` is a file in the output folder that stands there as long as the run goes on.

    With `compare`, photos on this node must be as they were listed: one that a node alone cannot see is no bad photo.
    """
    limit_threads()
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        return RunError(f"node {node_name()} takes file names for {encoding}. Start Ray there with PYTHONUTF8=1.")
    found = versions()
    if found != expected:
        theirs = ", ".join(
            f"{name} {found[name]} (not {expected[name]})" for name in found if found[name] != expected[name]
        )
        return RunError(
            f"node {node_name()} would make other bytes: it has {theirs}. Install the same versions on all nodes."
        )
    if mark and not mark.exists():
        return RunError(_no_output(task.config.output))
    if compare and storage_of(task.config.input).is_local:
        sizes = unlike_listed(local_path(task.config.input), task.plan.photos)
        if sizes:
            return Unlike(node_name(), sizes)
    reporter = _Reporter(task, board, mark)
    result = attempt(task, job, reporter.report, reporter.before_commit)
    return result if isinstance(result, RunError) else Made(result, reporter.done)


def node_name() -> str:
    return f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"


class _Reporter:
    """Tells the board now and then, and lets no shard get its name once the run is over.

    A task that Ray believes lost may still be alive somewhere, and so may those of a run that was killed. They are
    harmless while the run goes on, because they make the same bytes; afterwards they must not change anything.
    """

    def __init__(self, task: ShardTask, board: Any, mark: Path | None) -> None:
        self.done = Progress()
        self._task, self._board, self._mark = task, board, mark
        self._next_s = monotonic() + _REPORT_EVERY_S

    def report(self, progress: Progress) -> None:
        self.done += progress
        if monotonic() >= self._next_s:
            self._board.put.remote(self._task.plan.name, self.done)
            self._next_s = monotonic() + _REPORT_EVERY_S

    def before_commit(self) -> None:
        ray.get(self._board.put.remote(self._task.plan.name, self.done))  # the board dies with the run
        if self._mark and not self._mark.exists():
            raise RunError(_no_output(self._task.config.output))


def _no_output(output: Address) -> str:
    return (
        f"node {node_name()} does not see the output folder {output} as this machine does. All nodes need the same "
        "folder at the same path, e.g. mounted by NFS; or name a store (s3://...) as --output."
    )
