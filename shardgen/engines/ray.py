"""The engine of a Ray cluster: shards are made on whichever node has a free CPU, and again when a node is lost."""

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

# Before Ray is imported: it would otherwise report its use, warn of its own plans, and print every death to our stdout.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shardgen.engines.base import RUN_AGAIN, Job
from shardgen.engines.ray_node import Board, Made, Unlike, make, readable_size, versions
from shardgen.shard.job import Progress, Report, ShardResult, ShardTask
from srshards.errors import RunError, UsageError
from srshards.process.resources import available_cpus
from srshards.storage.store import local_path, storage_of

RETRIES = 3  # of a task whose node or worker process died
_LOOK_EVERY_S = 0.5
_CONNECT_S = 10.0
_STOP_S = 10.0  # what has not stopped by then is killed when the connection ends
_OBJECT_STORE_BYTES = 80_000_000  # the least that Ray takes: no pixels travel between processes


@contextmanager
def ray_engine(address: str | None, num_workers: int | None) -> Iterator["RayEngine"]:
    """Be connected to a cluster for as long as the context lasts.

    `address` is HOST:PORT, `auto` (a cluster that runs on this machine) or `local` (one of our own); None is what Ray
    makes of it: RAY_ADDRESS, the cluster that was last started on this machine, or one of our own. `num_workers` is
    the most tasks at a time; None for as many as the cluster has CPUs. UsageError when there is no such cluster.
    """
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        _connect(address or os.environ.get("RAY_ADDRESS") or None, num_workers)
        signal.signal(signal.SIGTERM, on_terminate)  # Ray has put its own there
        yield RayEngine(num_workers)
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, on_terminate)


class RayEngine:
    """Tasks of one CPU each, a bounded number of them handed to Ray at a time. Needs a connection: `ray_engine`."""

    num_workers = 0  # on this machine, as far as is known: Ray finds the places

    def __init__(self, max_tasks: int | None) -> None:
        self._max_tasks = max_tasks

    def run(self, tasks: Sequence[ShardTask], job: Job, report: Report) -> Iterator[ShardResult]:
        output, presence = tasks[0].config.output, ExitStack()
        run = _Run(job, presence.enter_context(storage_of(output).presence(output)))
        waiting = deque(tasks)
        with _signals_held() as raise_held:
            try:
                while waiting or run.tasks:
                    while waiting and len(run.tasks) < self._limit():
                        run.submit(waiting.popleft())
                    ready, _ = ray.wait(list(run.tasks), timeout=_LOOK_EVERY_S)
                    raise_held()
                    run.show(report)
                    for made in map(run.take, ready):
                        if made:
                            report(made.progress - run.shown.pop(made.result.name, Progress()))
                            yield made.result
            finally:
                presence.close()
                run.cancel()

    def _limit(self) -> int:
        """Asked for each time: nodes come and go."""
        return self._max_tasks or max(1, int(ray.cluster_resources().get("CPU", 0)))


class _Run:
    """The tasks that Ray has, and what is known of them."""

    def __init__(self, job: Job, mark: Path | None) -> None:
        self.tasks: dict[Any, ShardTask] = {}  # by the reference that Ray gives
        self.shown: dict[str, Progress] = {}  # of each unfinished shard, all that was reported
        self._job, self._mark, self._versions = job, mark, versions()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        board = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(Board)
        self._board = board.remote()
        self._make = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(make)

    def submit(self, task: ShardTask, compare: bool = True) -> None:
        named = self._make.options(name=task.plan.name)
        sent = _absolute(task)
        self.tasks[named.remote(sent, self._job, self._board, self._mark, self._versions, compare)] = task

    def show(self, report: Report) -> None:
        """Report what is new. A shard that is being made again counts from where it was lost."""
        unfinished = {task.plan.name for task in self.tasks.values()}
        for shard, progress in ray.get(self._board.take.remote()).items():
            before = self.shown.get(shard, Progress())
            if shard in unfinished and progress.photos > before.photos:
                report(progress - before)
                self.shown[shard] = progress

    def take(self, reference: Any) -> Made | None:
        """What a finished task made; None when it has to be done again. RunError as the engine raises it."""
        task = self.tasks.pop(reference)
        try:
            outcome = ray.get(reference)
        except RayTaskError as error:
            raise RunError(_not_begun(task, error)) from error
        except RayError as error:
            raise RunError(_lost(task, error)) from error
        if isinstance(outcome, RunError):
            raise outcome
        if isinstance(outcome, Unlike):
            _refuse_blind_node(task, outcome)
            self.submit(task, compare=False)
            return None
        assert isinstance(outcome, Made)
        return outcome

    def cancel(self) -> None:
        """Stop all tasks at once, and wait until they have cleared away what they had begun.

        Not by force, which may end this process too: a task that has just finished is one too many for Ray's books.
        Without board and mark none can finish its shard, whatever becomes of the interrupt.
        """
        ray.kill(self._board)
        for reference in self.tasks:
            ray.cancel(reference)
        if self.tasks:
            ray.wait(list(self.tasks), num_returns=len(self.tasks), timeout=_STOP_S)


@contextmanager
def _signals_held() -> Iterator[Callable[[], None]]:
    """Keep Ctrl-C, SIGTERM and SIGHUP for when what is yielded is called: Ray may lose an exception of a handler.

    The second one is not kept, but for SIGHUP, which a terminal that is closed sends as its shell does.
    """
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)
        if len(held) > 1 and number != signal.SIGHUP:
            raise_held()

    def raise_held() -> None:
        if held:
            before[held[0]](held[0], None)

    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if callable(signal.getsignal(n))]
    before: dict[int, Any] = {number: signal.signal(number, hold) for number in numbers}
    try:
        yield raise_held
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is hold:  # a handler may have done with its signal
                signal.signal(number, handler)


def _connect(address: str | None, num_workers: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "CRITICAL"}
    own = {"num_cpus": num_workers or available_cpus(), "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        if address in (None, "local"):
            try:
                ray.init(address, include_dashboard=False, **own, **quiet)
                return
            except ValueError:  # Ray has found a cluster, whose size is not ours to choose
                address = "auto"
        elif address != "auto":
            _refuse_silence(address)
        ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, SystemExit) as error:  # the last is what Ray does about silence
        raise UsageError(_no_cluster(address, error)) from error
    if not num_workers and not ray.cluster_resources().get("CPU"):
        raise UsageError(
            f"the Ray cluster at {address} has no CPUs. Start nodes (ray start --address ...), or name --workers if "
            "it starts them itself when there is work."
        )


def _refuse_silence(address: str) -> None:
    """UsageError when nobody answers at the address, where Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise UsageError(
            f"--ray-address {address}: expected HOST:PORT, auto or local. Where only ray://... can be reached, run the "
            "command on a node of the cluster, e.g. with `ray job submit`."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(_no_cluster(address, error)) from error


def _absolute(task: ShardTask) -> ShardTask:
    """The task with paths that mean the same on every node, whatever folder its processes stand in."""
    config = task.config
    return replace(task, config=replace(config, input=config.input.absolute(), output=config.output.absolute()))


def _refuse_blind_node(task: ShardTask, unlike: Unlike) -> None:
    """RunError when the node sees other photos than this machine. What has changed here too is taken as it is now."""
    root = local_path(task.config.input).absolute()  # stores are not compared
    for path, there in unlike.sizes.items():
        here = readable_size(root / path)
        if here != there:
            seen = ["cannot be read" if size is None else f"has {size:,} bytes" for size in (there, here)]
            raise RunError(
                f"{path} {seen[0]} on node {unlike.node}, and {seen[1]} on this machine. All nodes must see the same "
                f"photos in {root}: mend the node's mount, or take it out of the cluster. "
                f"{RUN_AGAIN}"
            )


def _no_cluster(address: str | None, error: BaseException) -> str:
    reason = "it does not answer as Ray does" if isinstance(error, SystemExit) else str(error).rstrip(". ")
    return (
        f"cannot use a Ray cluster at {address or 'local'}: {reason}. Start one with `ray start --head` and name its "
        "HOST:PORT as --ray-address, or --ray-address local for one of this run's own."
    )


def _not_begun(task: ShardTask, error: RayTaskError) -> str:
    last_line = str(error).strip().splitlines()[-1]
    return (
        f"shard {task.plan.name} could not be begun on a node: {last_line}. Install the same versions of everything on "
        f"all nodes, e.g. pip install 'ray>=2.40'. {RUN_AGAIN}"
    )


def _lost(task: ShardTask, error: RayError) -> str:
    reason = str(error).strip().splitlines()[0]
    return (
        f"shard {task.plan.name} was begun {1 + RETRIES} times, and each time the node or worker process that had "
        f"it died. The last time: {reason} If nodes run out of memory, start them with fewer CPUs (ray start "
        f"--num-cpus). {RUN_AGAIN}"
    )
