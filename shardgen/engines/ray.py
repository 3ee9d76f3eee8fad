"""Engine for a Ray cluster: shards are built on any node with a free CPU, and rebuilt when a node is lost."""

import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

# Set before Ray is imported: no usage statistics, no deprecation warnings, no log messages of dead workers on stdout.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shardgen.engines.base import RUN_AGAIN, Job
from shardgen.engines.ray_node import BuiltShard, PhotoMismatch, ProgressBoard, build_on_node, readable_size, versions
from shardgen.shard.job import Progress, Report, ShardResult, ShardTask
from srshards.errors import RunError, UsageError
from srshards.process.resources import available_cpus
from srshards.storage.store import storage_of

RETRIES = 3  # of a task whose node or worker process died
_POLL_EVERY_S = 0.5
_CONNECT_S = 10.0
_STOP_S = 10.0  # tasks still running by then are killed when the connection closes
_OBJECT_STORE_BYTES = 80_000_000  # Ray's minimum, because no pixels are sent between processes


@contextmanager
def ray_engine(address: str | None, num_workers: int | None) -> Iterator["RayEngine"]:
    """Connect to a cluster for the duration of the context.

    `address` is HOST:PORT, `auto` (a cluster running on this machine) or `local` (a new one). None is Ray's default:
    RAY_ADDRESS, the cluster last started on this machine, or a new one. `num_workers` is the maximum number of
    concurrent tasks; None for the number of CPUs of the cluster. UsageError when there is no such cluster.
    """
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        _connect(address or os.environ.get("RAY_ADDRESS") or None, num_workers)
        signal.signal(signal.SIGTERM, on_terminate)  # Ray has installed its own
        yield RayEngine(num_workers)
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, on_terminate)


class RayEngine:
    """Builds shards as Ray tasks of one CPU each, submitting a bounded number at a time. Created by `ray_engine`."""

    num_workers = 0  # on this machine: unknown, because Ray chooses the nodes

    def __init__(self, max_tasks: int | None) -> None:
        self._max_tasks = max_tasks

    def run(self, tasks: Sequence[ShardTask], job: Job, report: Report) -> Iterator[ShardResult]:
        output, presence = tasks[0].config.output, ExitStack()
        run = _Run(job, presence.enter_context(storage_of(output).presence_file(output)))
        pending = deque(tasks)
        with _deferred_signals() as handle_deferred:
            try:
                while pending or run.tasks:
                    while pending and len(run.tasks) < self._limit():
                        run.submit(pending.popleft())
                    ready, _ = ray.wait(list(run.tasks), timeout=_POLL_EVERY_S)
                    handle_deferred()
                    run.report_progress(report)
                    for built in map(run.fetch, ready):
                        if built:
                            report(built.progress - run.reported.pop(built.result.name, Progress()))
                            yield built.result
            finally:
                presence.close()
                run.cancel()

    def _limit(self) -> int:
        """Return the current maximum number of concurrent tasks, which changes as nodes join and leave."""
        return self._max_tasks or max(1, int(ray.cluster_resources().get("CPU", 0)))


class _Run:
    """The submitted tasks and their progress."""

    def __init__(self, job: Job, mark: Path | None) -> None:
        self.tasks: dict[Any, ShardTask] = {}  # by Ray's object reference
        self.reported: dict[str, Progress] = {}  # by name of unfinished shard
        self._job, self._mark, self._versions = job, mark, versions()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        board = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(ProgressBoard)
        self._board = board.remote()
        self._build = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(build_on_node)

    def submit(self, task: ShardTask, compare: bool = True) -> None:
        build = self._build.options(name=task.plan.name)
        arguments = (_absolute(task), self._job, self._board, self._mark, self._versions, compare)
        self.tasks[build.remote(*arguments)] = task

    def report_progress(self, report: Report) -> None:
        """Report new progress. A shard being rebuilt is reported again only from the point where it was lost."""
        unfinished = {task.plan.name for task in self.tasks.values()}
        for shard, progress in ray.get(self._board.take.remote()).items():
            before = self.reported.get(shard, Progress())
            if shard in unfinished and progress.photos > before.photos:
                report(progress - before)
                self.reported[shard] = progress

    def fetch(self, reference: Any) -> BuiltShard | None:
        """Return the result of a finished task; None when it was submitted again. RunError as in `Engine.run`."""
        task = self.tasks.pop(reference)
        try:
            outcome = ray.get(reference)
        except RayTaskError as error:
            raise RunError(_not_started(task, error)) from error
        except RayError as error:
            raise RunError(_lost(task, error)) from error
        if isinstance(outcome, RunError):
            raise outcome
        if isinstance(outcome, PhotoMismatch):
            _refuse_node_with_other_photos(task, outcome)
            self.submit(task, compare=False)
            return None
        assert isinstance(outcome, BuiltShard)
        return outcome

    def cancel(self) -> None:
        """Stop all tasks, and wait until they have removed their temporary files.

        `force=True` is not used: it can end this process too, if a task has just finished. Without board and mark, no
        task can publish its shard, even if the cancellation does not reach it.
        """
        ray.kill(self._board)
        for reference in self.tasks:
            ray.cancel(reference)
        if self.tasks:
            ray.wait(list(self.tasks), num_returns=len(self.tasks), timeout=_STOP_S)


@contextmanager
def _deferred_signals() -> Iterator[Callable[[], None]]:
    """Defer SIGINT, SIGTERM and SIGHUP until the yielded function is called: Ray may swallow a handler's exception.

    A second signal is handled immediately, except SIGHUP, which both a closing terminal and its shell send.
    """
    deferred: list[int] = []

    def defer(number: int, frame: FrameType | None) -> None:
        deferred.append(number)
        if len(deferred) > 1 and number != signal.SIGHUP:
            handle_deferred()

    def handle_deferred() -> None:
        if deferred:
            before[deferred[0]](deferred[0], None)

    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if callable(signal.getsignal(n))]
    before: dict[int, Any] = {number: signal.signal(number, defer) for number in numbers}
    try:
        yield handle_deferred
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is defer:  # a handler may have replaced it
                signal.signal(number, handler)


def _connect(address: str | None, num_workers: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "CRITICAL"}
    new_cluster = {"num_cpus": num_workers or available_cpus(), "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        if address in (None, "local"):
            try:
                ray.init(address, include_dashboard=False, **new_cluster, **quiet)
                return
            except ValueError:  # Ray has found a running cluster, whose size cannot be set
                address = "auto"
        elif address != "auto":
            _require_reachable(address)
        ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, SystemExit) as error:  # Ray exits if nothing answers
        raise UsageError(_no_cluster(address, error)) from error
    if not num_workers and not ray.cluster_resources().get("CPU"):
        raise UsageError(
            f"the Ray cluster at {address} has no CPUs; start nodes (`ray start --address ...`), or pass --workers if "
            "the cluster starts nodes on demand"
        )


def _require_reachable(address: str) -> None:
    """Raise UsageError if nothing answers at the address; Ray would retry for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise UsageError(
            f"--ray-address {address}: expected HOST:PORT, auto or local; if only ray://... is reachable, run the "
            "command on a node of the cluster, e.g. with `ray job submit`"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(_no_cluster(address, error)) from error


def _absolute(task: ShardTask) -> ShardTask:
    """Return the task with absolute paths, because the working directory differs between nodes."""
    return replace(task, config=task.config.mapped(lambda address: address.absolute()))


def _refuse_node_with_other_photos(task: ShardTask, mismatch: PhotoMismatch) -> None:
    """Raise RunError if the node's photos differ from this machine's. Photos that changed here too are accepted."""
    for (root, path), there in mismatch.sizes.items():
        here = readable_size(root / path)
        if here != there:
            state = ["cannot be read" if size is None else f"has {size:,} bytes" for size in (there, here)]
            raise RunError(
                f"{path} {state[0]} on node {mismatch.node}, but {state[1]} on this machine. All nodes must see the "
                f"same {task.config.noun}s in {root}: fix the node's mount, or remove the node from the cluster. "
                f"{RUN_AGAIN}"
            )


def _no_cluster(address: str | None, error: BaseException) -> str:
    reason = "no Ray cluster responds there" if isinstance(error, SystemExit) else str(error).rstrip(". ")
    return (
        f"cannot use a Ray cluster at {address or 'local'}: {reason}; start one with `ray start --head` and pass its "
        "HOST:PORT as --ray-address, or pass --ray-address local to start one for this run"
    )


def _not_started(task: ShardTask, error: RayTaskError) -> str:
    last_line = str(error).strip().splitlines()[-1]
    return (
        f"shard {task.plan.name} could not be started on a node: {last_line}. Install the same package versions on "
        f"all nodes, e.g. pip install 'ray>=2.40'. {RUN_AGAIN}"
    )


def _lost(task: ShardTask, error: RayError) -> str:
    reason = str(error).strip().splitlines()[0]
    return (
        f"shard {task.plan.name} was started {1 + RETRIES} times, and each time its node or worker process died. "
        f"Last error: {reason} If nodes run out of memory, start them with fewer CPUs (ray start --num-cpus). "
        f"{RUN_AGAIN}"
    )
