"""The part of the Ray engine that runs on nodes: check that a node matches the driver's machine, then build shards."""

import os
import platform
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import ray
from PIL import features

from shardgen.degradation.degrade import libraries
from shardgen.engines.base import Job, run_job
from shardgen.pairs.lmdb_folder import is_lmdb
from shardgen.shard.job import Progress, ShardResult, ShardTask, limit_threads
from srshards import __version__
from srshards.errors import RunError
from srshards.format import Address
from srshards.storage.store import local_path, storage_of

_REPORT_EVERY_S = 1.0


@dataclass(frozen=True)
class BuiltShard:
    """A finished shard and the progress of its task."""

    result: ShardResult
    progress: Progress


@dataclass(frozen=True)
class PhotoMismatch:
    """Photos whose size on a node differs from the listing, with that size in bytes; None if unreadable."""

    node: str
    sizes: dict[tuple[Path, str], int | None]  # by root and path


class ProgressBoard:
    """Actor on the driver's machine to which tasks send their progress."""

    def __init__(self) -> None:
        self._updates: dict[str, Progress] = {}

    def put(self, shard: str, progress: Progress) -> None:
        self._updates[shard] = progress

    def take(self) -> dict[str, Progress]:
        """Return the total progress of the current task of each shard that was updated since the last call."""
        updates, self._updates = self._updates, {}
        return updates


def versions() -> dict[str, str]:
    """Return the versions that determine a shard's bytes, together with photos and settings."""
    own = {"python": platform.python_version().rpartition(".")[0], "sr-shards": __version__}
    return {**own, "littlecms": features.version("littlecms2") or "none", **libraries()}


def mismatched_sizes(task: ShardTask) -> dict[tuple[Path, str], int | None]:
    """Return the current sizes of the local files of a task that are unreadable or differ in size from the listing.

    Files without a size in the listing are not compared, nor are those in object stores and LMDBs.
    """
    files = task.config.files(task.plan.split, task.plan.photos, task.scales)
    found = {
        (local_path(root), file.path): (file.size, readable_size(local_path(root) / file.path))
        for root, file in files
        if storage_of(root).is_local and not is_lmdb(root) and file.size >= 0
    }
    return {file: now for file, (listed, now) in found.items() if now != listed}


def readable_size(path: Path) -> int | None:
    """Return a file's size in bytes; None if this process cannot read it."""
    try:
        size = path.stat().st_size
    except OSError:
        return None
    return size if os.access(path, os.R_OK) else None


def build_on_node(
    task: ShardTask, job: Job, board: Any, mark: Path | None, expected: dict[str, str], compare: bool
) -> BuiltShard | PhotoMismatch | RunError:
    """Build a shard as a Ray task. `mark` is a file in the output folder that exists for the duration of the run.

    With `compare`, the photos must match the listing: a photo that only this node cannot see must not count as failed.
    """
    limit_threads()
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        return RunError(f"node {node_name()} decodes file names as {encoding}; start Ray there with PYTHONUTF8=1")
    found = versions()
    if found != expected:
        different = ", ".join(
            f"{name} {found[name]} (not {expected[name]})" for name in found if found[name] != expected[name]
        )
        return RunError(
            f"node {node_name()} has different versions: {different}; install the same versions on all nodes, because "
            "shards depend on them"
        )
    if mark and not mark.exists():
        return RunError(_no_output(task.config.output))
    if compare and (sizes := mismatched_sizes(task)):
        return PhotoMismatch(node_name(), sizes)
    reporter = _Reporter(task, board, mark)
    result = run_job(task, job, reporter.report, reporter.before_commit)
    return result if isinstance(result, RunError) else BuiltShard(result, reporter.done)


def node_name() -> str:
    return f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"


class _Reporter:
    """Sends progress to the board at intervals, and prevents shards from being published after the end of the run.

    A task that Ray considers lost may still be running, and so may the tasks of a killed run. They are harmless during
    the run, because they write the same bytes, but must not change anything afterwards.
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
        ray.get(self._board.put.remote(self._task.plan.name, self.done))  # raises after the end of the run
        if self._mark and not self._mark.exists():
            raise RunError(_no_output(self._task.config.output))


def _no_output(output: Address) -> str:
    return (
        f"node {node_name()} cannot access the output folder {output}; mount the same folder at the same path on all "
        "nodes, e.g. by NFS, or pass an object store (s3://...) as --output"
    )
