"""Shared by all benchmarks: photo sets, timed processes, alternating rounds, scratch folders.

A benchmark compares several cases that do the same work. Each runs in a fresh process, all cases once per round, with
the order reversed in every second round, so that other influences (clock rates, other tenants, a busy disk) affect
all of them equally. A case is summarised by its median, minimum and maximum. A ratio of two cases is taken within
each round before its median is, because both runs of a round had the same conditions.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import click

from shardgen.planning.sources import list_photos
from srshards.errors import UsageError

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"

_TIMEOUT_S = 1800.0  # far longer than any run; stops one that hangs

_T = TypeVar("_T")


class RunFailedError(Exception):
    """A timed command failed; the message says how, with the last line of its output."""


@dataclass(frozen=True)
class PhotoSet:
    """Photos on disk; `paths` are relative to `root` and sorted."""

    root: Path
    paths: tuple[str, ...]
    num_bytes: int

    @classmethod
    def of(cls, root: Path | None) -> "PhotoSet":
        """List the photos below `root`. A usage error (exit code 2) when there are none."""
        if root is None:
            raise click.UsageError(
                "pass a folder of photos with --photos DIR: a few hundred real photos of the kind that you train on "
                "(synthetic images decode and compress at other speeds)"
            )
        try:
            photos = sorted(list_photos(root).photos, key=lambda photo: photo.path)
        except UsageError as error:
            raise click.UsageError(f"--photos {root}: no photo found; pass a folder that contains some") from error
        return cls(root.resolve(), tuple(photo.path for photo in photos), sum(photo.size for photo in photos))

    def read_into_page_cache(self) -> None:
        """Read every photo into the page cache."""
        for path in self.paths:
            (self.root / path).read_bytes()

    def first(self, count: int, folder: Path) -> "PhotoSet":
        """Link the first `count` photos into a new folder."""
        for path in self.paths[:count]:
            link = folder / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(self.root / path)
        return PhotoSet.of(folder)

    def describe(self) -> dict[str, Any]:
        return {"count": len(self.paths), "bytes": self.num_bytes}


def in_rounds(cases: Sequence[_T], rounds: int) -> Iterator[tuple[int, _T]]:
    """Yield (round number, case): every case once per round, in reverse order in every second round."""
    for number in range(rounds):
        for case in alternating(cases, number):
            yield number, case


def alternating(cases: Sequence[_T], number: int) -> Iterable[_T]:
    """Return the cases in the order of round `number`."""
    return cases if number % 2 == 0 else reversed(cases)


def timed_command(
    args: Sequence[str],
    environment: Mapping[str, str] | None = None,
    folder: Path = REPOSITORY,
    limit_s: float = _TIMEOUT_S,
) -> tuple[float, str]:
    """Run a command, by default in the repository root; return its wall time in seconds and its standard output.

    RunFailedError unless it exits with 0 within `limit_s`. The command gets its own process group, so that no child
    outlives a failure, and writes to a file, because a pipe stays open as long as any grandchild has it open.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        start_s = perf_counter()
        process = subprocess.Popen(
            args,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise RunFailedError(f"did not finish within {limit_s:.0f} s") from None
        finally:
            seconds = perf_counter() - start_s
            _kill_group(process)
        if process.returncode != 0:
            raise RunFailedError(f"exit code {process.returncode}: {_last_line(_content(errors) or _content(output))}")
        return seconds, _content(output)


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):  # every process has exited
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _content(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace"))


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "(no output)"


def timed_json(args: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a command as `timed_command` does; return the JSON object that it prints."""
    found: dict[str, Any] = json.loads(timed_command(args, environment)[1])
    return found


def python_module(name: str, *args: object) -> list[str]:
    """Return the command that runs a module with this interpreter."""
    return [sys.executable, "-m", name, *map(str, args)]


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """Yield a temporary folder in `parent` (default: the system's), deleted when the benchmark ends."""
    with tempfile.TemporaryDirectory(prefix="shardgen-bench-", dir=parent) as folder:
        yield Path(folder).resolve()


def folder_bytes(folder: Path) -> int:
    """Return the total size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def say(text: str) -> None:
    """Print a line of progress on standard error."""
    click.echo(text, err=True)
