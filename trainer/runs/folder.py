"""A run folder, `runs/NAME`: configuration, journal, previews, weights and state."""

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
from srshards.storage.store import file_size, list_files, read_bytes, storage_of, write_bytes

CONFIG, JOURNAL, STATE, JOB = "config.yaml", "journal.jsonl", "state.pt", ".job"
_PLAN, _PREVIEWS = "plan.json", "previews"
_WEIGHTS, _BEST, _DISCRIMINATOR = "model.pth", "best.pth", "discriminator.pth"
_LOCK = ".lock"


class RunInUseError(UsageError):
    """The run's name is already in use."""


class RunFolder:
    """The paths of a run. The folder is created when something is first written.

    `home` is the address of the run, `path` the local folder that its files are written to; here they are the same.
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
        self.discriminator = path / _DISCRIMINATOR  # of an adversarial training
        self.state = path / STATE
        self.has_steps = False  # whether this process took a step; a new run that fails before that is removed

    @contextmanager
    def locked(self, new: bool = False) -> Iterator["RunFolder"]:
        """Lock the folder against other processes. The lock is released when its process ends, however it ends.

        Inside the block, the files needed to resume are in `path`; after it, all written files are in `home`, or
        removed if a new run failed before its first step. UsageError if another process holds the lock, or if a `new`
        run finds files of another one.
        """
        lock = FileLock(storage_of(self.home).lock_path(self.home, _LOCK))
        try:
            self._create()
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RunInUseError(
                f"another process is training in {self.home}; wait until it ends, or pass another --run"
            ) from error
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror or error}") from error
        try:
            if new:
                self.require_unused()
            with self._session():
                existing = set(self.path.glob("*"))
                try:
                    yield self
                except BaseException:
                    if new and not self.has_steps:
                        self._discard(existing)
                    raise
        finally:
            lock.release()

    def require_unused(self) -> None:
        """Raise UsageError if the folder contains a run, or files that a run would overwrite."""
        files = list_files(self.home)
        if CONFIG in files or STATE in files:
            raise RunInUseError(f"{self.home} already exists; continue it with --resume, or pass another --run")
        if existing := sorted(files.keys() & {JOURNAL, _PLAN, _WEIGHTS, _BEST, _DISCRIMINATOR}):
            raise RunInUseError(
                f"{self.home} contains {existing[0]}, which a new run would overwrite; pass another --run"
            )

    def is_missing_state(self) -> bool:
        """Return whether there are weights but no state, which is always written before them."""
        return self.weights.exists() and not self.state.exists()

    def is_missing(self, weights: Path) -> bool:
        """Return whether a file of weights is missing or older than the state."""
        return not weights.exists() or weights.stat().st_mtime_ns < self.state.stat().st_mtime_ns

    def write_job(self, job: str) -> None:
        """Record the torchrun job that trains here, by which `run_of_job` finds the folder."""
        with writing(self.home / JOB):
            write_bytes(self.home / JOB, job.encode())

    def write_config(self, settings: dict[str, Any]) -> None:
        with writing(self.config):
            write_atomically(self.config, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode())

    def write_plan(self, facts: dict[str, Any]) -> None:
        """Write the values derived from the settings. A resumed run keeps its network, its rates and its warm-up."""
        with writing(self.plan):
            write_atomically(self.plan, json.dumps(facts, indent=2).encode())

    def read_plan(self) -> dict[str, Any] | None:
        """Return what `write_plan` wrote, {} if the file is missing, or None if the run has no state to resume from.

        UsageError if the file cannot be read.
        """
        address = self.home / self.plan.name
        if file_size(self.home / self.state.name) is None:
            return None
        if file_size(address) is None:
            return {}
        try:
            facts = json.loads(read_bytes(address))
        except OSError as error:
            raise UsageError(f"cannot read {address}: {error.strerror}") from error
        except ValueError:
            facts = None
        if not isinstance(facts, dict):
            raise self.damaged_plan()
        return facts

    def damaged_plan(self) -> UsageError:
        """Return the error for a plan.json that does not have what `write_plan` writes."""
        return UsageError(
            f"{self.home / self.plan.name} is damaged; restore it to resume exactly, or start a new run, e.g. with "
            f"--init {self.home / self.weights.name}"
        )

    def publish(self, patience_s: float = math.inf) -> None:
        """Copy changed files from `path` to `home`, the state last because it refers to the others.

        StoreError if the upload fails, or if `patience_s` has passed before the last file.
        """

    def _create(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def _discard(self, existing: set[Path]) -> None:
        """Remove everything except the `existing` paths, and then the folder if it is empty."""
        with suppress(OSError):
            for path in set(self.path.iterdir()) - existing:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if [path.name for path in self.path.iterdir()] == [_LOCK]:
                (self.path / _LOCK).unlink()
                self.path.rmdir()

    @contextmanager
    def _session(self) -> Iterator[None]:
        """Prepare `path` once the lock is held, and clean up before it is released."""
        storage_of(self.home).remove_unfinished([self.path, self.previews])
        yield
