"""A run's folder: `runs/NAME` with its configuration, journal, pictures, weights and state."""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from srshards.errors import RunError, UsageError
from srshards.format import Address
from srshards.storage.files import write_atomically, writing
from srshards.storage.store import list_files, storage_of, write_bytes

CONFIG, JOURNAL, STATE, JOB = "config.yaml", "journal.jsonl", "state.pt", ".job"
_PLAN, _PREVIEWS = "plan.json", "previews"
_WEIGHTS, _BEST = "model.pth", "best.pth"
_LOCK = ".lock"


class TakenError(UsageError):
    """The name belongs to another run."""


class RunFolder:
    """The paths of a run on this machine. Nothing is made before something is written.

    `home` is where the run lies for everyone; `path` is where its files are written. Both are the same here.
    """

    def __init__(self, home: Address, path: Path) -> None:
        self.home = home
        self.path = path
        self.config = path / CONFIG
        self.journal = path / JOURNAL
        self.tensorboard = path / "tensorboard"
        self.previews = path / _PREVIEWS
        self.plan = path / _PLAN
        self.weights = path / _WEIGHTS
        self.best = path / _BEST
        self.state = path / STATE
        self.has_steps = False  # of this process; a new run that ends before its first one leaves nothing behind

    @contextmanager
    def locked(self, new: bool = False) -> Iterator["RunFolder"]:
        """Keep every other process out of the folder. The lock dies with its process.

        UsageError when it is taken, or when a run that has to be `new` was begun there already. What resuming needs is
        there inside; all that was made is where it belongs afterwards, or removed if a new run took no step.
        """
        lock = FileLock(storage_of(self.home).lock_path(self.home, _LOCK))
        try:
            self._make()
            lock.acquire(timeout=0)
        except Timeout as error:
            raise TakenError(
                f"another process is training in {self.home}; wait until it has ended, or name another --run"
            ) from error
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror or error}") from error
        try:
            if new:
                self.refuse_begun()
            with self._work():
                there = set(self.path.glob("*"))
                try:
                    yield self
                except BaseException:
                    if new and not self.has_steps:
                        self._discard(there)
                    raise
        finally:
            lock.release()

    def refuse_begun(self) -> None:
        """UsageError when a run was begun in the folder, or files of one lie there."""
        there = list_files(self.home)
        if CONFIG in there or STATE in there:
            raise TakenError(f"{self.home} is there already; go on with it by --resume, or choose another --run")
        if held := sorted(there.keys() & {JOURNAL, _PLAN, _WEIGHTS, _BEST}):
            raise TakenError(f"{self.home} holds {held[0]}, which a new run would replace; choose another --run")

    def has_lost_its_state(self) -> bool:
        """Whether weights are there that came after a state, and no state."""
        return self.weights.exists() and not self.state.exists()

    def lacks_its_weights(self) -> bool:
        """Whether those of the state are missing, or were not written any more."""
        if not self.weights.exists():
            return True
        return self.weights.stat().st_mtime_ns < self.state.stat().st_mtime_ns

    def write_job(self, job: str) -> None:
        """Note the torchrun job that trains here, so that `run_of_job` finds the folder."""
        with writing(self.home / JOB):
            write_bytes(self.home / JOB, job.encode())

    def write_config(self, settings: dict[str, Any]) -> None:
        with writing(self.config):
            write_atomically(self.config, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode())

    def write_plan(self, facts: dict[str, Any]) -> None:
        """What the settings come to: for whoever looks at the run, no run depends on it."""
        with writing(self.plan):
            write_atomically(self.plan, json.dumps(facts, indent=2).encode())

    def publish(self, patience_s: float = math.inf) -> None:
        """Put what has changed where it lies for everyone, the state last: it speaks of all the others.

        StoreError when a store does not take it, or a file's turn comes only when patience has run out.
        """

    def _make(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def _discard(self, there: set[Path]) -> None:
        """Remove what the run wrote, all but what was `there`; and its folder, if nothing else is in it."""
        with suppress(OSError):
            for path in set(self.path.iterdir()) - there:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if [path.name for path in self.path.iterdir()] == [_LOCK]:
                (self.path / _LOCK).unlink()
                self.path.rmdir()

    @contextmanager
    def _work(self) -> Iterator[None]:
        """What comes before and after the work of whoever has the lock."""
        storage_of(self.home).remove_unfinished([self.path, self.previews])
        yield
