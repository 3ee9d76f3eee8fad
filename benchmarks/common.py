"""What every benchmark needs: photos, processes on the clock, rounds that alternate, the machine, the result.

A benchmark has several ways of doing the same work. Each is timed in fresh processes, all ways once per round, every
second round in reverse order, so that whatever the machine does in between (clock rates, neighbours, a disk that is
busy with its own affairs) hits all of them alike. What is said about a way is its median with minimum and maximum, and
a ratio of two ways is taken within each round before its median is: the two runs had the same neighbours.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import click

from shardgen.planning.sources import list_photos
from srshards.errors import UsageError

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
CLOCKS = ("command", "work")

_TIMEOUT_S = 1800.0  # nothing here takes minutes; a hang must not last for ever


class RunFailedError(Exception):
    """A command that was to be timed did not do its work; the message says which and what it wrote last."""


@dataclass(frozen=True)
class PhotoSet:
    """Photos on the disk; `paths` are relative to `root`, sorted."""

    root: Path
    paths: tuple[str, ...]
    num_bytes: int

    @classmethod
    def of(cls, root: Path | None) -> "PhotoSet":
        """The photos below `root`. Exit code 2, and what to do, when there are none."""
        if root is None:
            raise click.UsageError(
                "name a folder of photos with --photos DIR. Any folder of real photos does, best some hundred of the "
                "kind that you train on: made-up pictures decode and compress at other speeds."
            )
        try:
            photos = sorted(list_photos(root).photos)
        except UsageError as error:
            raise click.UsageError(
                f"--photos {root}: there is no photo there. Name a folder that holds some."
            ) from error
        return cls(root.resolve(), tuple(photo.path for photo in photos), sum(photo.size for photo in photos))

    def touch(self) -> None:
        """Read every photo, so that the page cache holds them all."""
        for path in self.paths:
            (self.root / path).read_bytes()

    def first(self, count: int, folder: Path) -> "PhotoSet":
        """The first `count` photos, as links in a new folder."""
        for path in self.paths[:count]:
            link = folder / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(self.root / path)
        return PhotoSet.of(folder)

    def describe(self) -> dict[str, Any]:
        return {"count": len(self.paths), "bytes": self.num_bytes}


@dataclass(frozen=True)
class Run:
    """One timed run.

    `command_s` is the life of the command, interpreter start and imports included; `work_s` what it (or its workers)
    took from the moment before the workers were started until the last had ended. `seconds` are further times by name,
    summed over the workers.
    """

    photos: int
    command_s: float
    work_s: float
    output_bytes: int
    seconds: dict[str, float] = field(default_factory=dict)

    def rate(self, clock: str) -> float:
        """Photos per second by the clock `command` or `work`."""
        return self.photos / (self.command_s if clock == "command" else self.work_s)


@dataclass(frozen=True)
class Way:
    """A way of making the data: `run(photos, output)` does it once, from nothing, into a folder that is not there."""

    name: str
    what: str
    run: Callable[[PhotoSet, Path], Run]
    optional: bool = False  # may fail, which the result then says, without ending the benchmark


@dataclass
class Rounds:
    """The runs of every way, in the order of the rounds; for ways that failed, why."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)


def alternate(ways: Sequence[Way], photos: PhotoSet, scratch: Path, rounds: int, num_warm_up: int = 16) -> Rounds:
    """Every way once per round, after a pass over `num_warm_up` photos that does not count.

    The warm-up compiles what Python compiles, brings the libraries into the page cache, and shows what does not work.
    """
    result = Rounds()
    warm_up = photos.first(num_warm_up, scratch / "warm_up")
    for way in ways:
        _attempt(way, warm_up, scratch, result)
        say(f"warm-up  {way.name}: {result.unavailable.get(way.name, 'works')}")
    for number in range(rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            if way.name in result.unavailable:
                continue
            if run := _attempt(way, photos, scratch, result):
                result.runs.setdefault(way.name, []).append(run)
                say(f"round {number + 1}/{rounds}  {way.name}: {run.rate('command'):.0f} photos/s")
    return result


def _attempt(way: Way, photos: PhotoSet, scratch: Path, result: Rounds) -> Run | None:
    """A run with the photos in the page cache, nobody's dirty pages in it, and its output removed afterwards."""
    output = scratch / "output"
    photos.touch()
    os.sync()
    try:
        return way.run(photos, output)
    except RunFailedError as error:
        if not way.optional:
            raise click.ClickException(f"{way.name}: {error}") from error
        result.unavailable[way.name] = str(error)
        result.runs.pop(way.name, None)
        return None
    finally:
        shutil.rmtree(output, ignore_errors=True)


def timed_command(args: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[float, str]:
    """Run a command in the repository's root. Its seconds and its standard output; RunFailedError unless it exits 0.

    It gets a process group of its own, so that nothing of it outlives a failure, and its output goes to a file: a pipe
    that a forgotten grandchild holds open would never end.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        start_s = perf_counter()
        process = subprocess.Popen(
            args,
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        try:
            process.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise RunFailedError(f"did not end within {_TIMEOUT_S:.0f} s") from None
        finally:
            seconds = perf_counter() - start_s
            _kill_group(process)
        if process.returncode != 0:
            raise RunFailedError(f"exit code {process.returncode}: {_last_line(_content(errors) or _content(output))}")
        return seconds, _content(output)


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):  # all of it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _content(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace"))


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "(it said nothing)"


def python_module(name: str, *args: object) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", name, *map(str, args)]


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """A folder below `parent` (or the system's temporary one) that goes when the benchmark ends."""
    with tempfile.TemporaryDirectory(prefix="shardgen-bench-", dir=parent) as folder:
        yield Path(folder).resolve()


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder, as their sizes say."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def say(text: str) -> None:
    """A line on standard error: how far the benchmark is."""
    click.echo(text, err=True)
