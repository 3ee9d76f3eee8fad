"""A run's folder: `runs/NAME` with its configuration, journal, pictures, weights and state."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from trainer.errors import RunError, UsageError
from trainer.files import remove_temporaries, write_atomically

_JOB = ".job"


class RunFolder:
    """The paths of a run. Nothing is made before something is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.journal = path / "journal.jsonl"
        self.tensorboard = path / "tensorboard"
        self.previews = path / "previews"
        self.weights = path / "model.pth"
        self.best = path / "best.pth"
        self.state = path / "state.pt"
        self._job = path / _JOB

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process out of the folder. The lock dies with its process. UsageError when it is taken."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UsageError(
                f"another process is training in {self.path}; wait until it has ended, or name another --run"
            ) from error
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror or error}") from error
        try:
            for folder in (self.path, self.previews):
                remove_temporaries(folder)
            yield
        finally:
            lock.release()

    def write_job(self, job: str) -> None:
        """Note the torchrun job that trains here, so that `run_of_job` finds the folder."""
        write_atomically(self._job, job.encode())

    def write_config(self, settings: dict[str, Any]) -> None:
        write_atomically(self.config, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode())


def new_run(out: Path, name: str | None, default_name: str) -> RunFolder:
    """The folder of a new run: `name`, which must be free, or the first free one of default, default-2, ..."""
    if name is not None:
        run = RunFolder(out / name)
        if run.config.is_file() or run.state.is_file():
            raise UsageError(f"{run.path} is there already; go on with it by --resume, or choose another --run")
        return run
    number = 1
    while (path := out / (default_name if number == 1 else f"{default_name}-{number}")).exists():
        number += 1
    return RunFolder(path)


def existing_run(out: Path, name: str | None) -> RunFolder:
    """The folder of the run to resume. UsageError lists the runs that there are when it is none of them."""
    runs = sorted(path.parent.name for path in out.glob("*/config.yaml"))
    there = f"the runs in {out} are: {', '.join(runs)}" if runs else f"there are no runs in {out}"
    if name is None:
        raise UsageError(f"--resume needs the run's name: --run NAME; {there}")
    if name not in runs:
        raise UsageError(f"--run {name} --resume: there is no {out / name / 'config.yaml'}; {there}")
    return RunFolder(out / name)


def run_of_job(out: Path, name: str | None, job: str) -> RunFolder | None:
    """The folder that a torchrun job trains in, of that name if there is one; None before it has begun."""
    found = [path for path in out.glob(f"*/{_JOB}") if name in (None, path.parent.name) and path.read_text() == job]
    return RunFolder(max(found, key=lambda path: path.stat().st_mtime_ns).parent) if found else None
