"""A run's folder: `runs/NAME` with its configuration, journal, pictures, weights and state.

Where it lies in a store, the run works in a folder of this machine, and what has changed is put into the store with
every save, `state.pt` last.
"""

import hashlib
import json
import math
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import yaml
from filelock import FileLock, Timeout

from srshards.errors import ReportedError, RunError, UsageError
from srshards.format import Address
from srshards.storage.files import remove_temporaries, write_atomically, writing
from srshards.storage.store import (
    StoreError,
    file_size,
    is_folder,
    list_files,
    list_folders,
    read_bytes,
    remove,
    upload,
    write_bytes,
)

_CONFIG, _JOURNAL, _STATE, _JOB = "config.yaml", "journal.jsonl", "state.pt", ".job"
_PLAN, _PREVIEWS = "plan.json", "previews"
_WEIGHTS, _BEST = "model.pth", "best.pth"
_KEPT = "-kept"  # ends the name of a folder that whoever runs has been told to look into
_LARGE = (".pt", ".pth")  # and never written to once they have their names


class _Taken(UsageError):
    """The name belongs to another run."""


class RunFolder:
    """The paths of a run. Nothing is made before something is written.

    `home` is where the run lies for everyone; `path` is where its files are written, the same for a folder of this
    machine.
    """

    def __init__(self, home: Address) -> None:
        self.home = home
        path = home if isinstance(home, Path) else _temporary(f"sr-run-{_digest(home)}-{secrets.token_hex(4)}")
        self.path = path
        self.config = path / _CONFIG
        self.journal = path / _JOURNAL
        self.tensorboard = path / "tensorboard"
        self.previews = path / _PREVIEWS
        self.plan = path / _PLAN
        self.weights = path / _WEIGHTS
        self.best = path / _BEST
        self.state = path / _STATE
        self._published: dict[Path, tuple[int, int]] = {}  # by file: the time of its last change, and its size then

    @contextmanager
    def locked(self, new: bool = False) -> Iterator["RunFolder"]:
        """Keep every other process out of the folder. The lock dies with its process.

        UsageError when it is taken, or when a run that has to be `new` was begun there already. What resuming needs is
        there inside; all that was made is where it belongs afterwards. The lock of a run in a store keeps out the
        processes of this machine alone.
        """
        try:
            if isinstance(self.home, Path):
                self.path.mkdir(parents=True, exist_ok=True)
                lock = FileLock(self.path / ".lock")
            else:
                lock = FileLock(_temporary(f"sr-run-{_digest(self.home)}.lock"))
            lock.acquire(timeout=0)
        except Timeout as error:
            raise _Taken(
                f"another process is training in {self.home}; wait until it has ended, or name another --run"
            ) from error
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror or error}") from error
        try:
            if new:
                self.refuse_begun()
            if self.path == self.home:
                for folder in (self.path, self.previews):
                    remove_temporaries(folder)
                yield self
            else:
                self._remove_abandoned()
                try:
                    self._fetch()
                    yield self
                except BaseException as error:
                    self._bring_home(error)
                    raise
                else:
                    self._bring_home()
        finally:
            lock.release()

    def refuse_begun(self) -> None:
        """UsageError when a run was begun in the folder, or files of one lie there."""
        there = list_files(self.home)
        if _CONFIG in there or _STATE in there:
            raise _Taken(f"{self.home} is there already; go on with it by --resume, or choose another --run")
        if held := sorted(there.keys() & {_JOURNAL, _PLAN, _WEIGHTS, _BEST}):
            raise _Taken(f"{self.home} holds {held[0]}, which a new run would replace; choose another --run")

    def has_lost_its_state(self) -> bool:
        """Whether weights are there that came after a state, and no state. In a store, the weights come first."""
        return self.path == self.home and self.weights.exists() and not self.state.exists()

    def lacks_its_weights(self) -> bool:
        """Whether those of the state are missing, or, on a disk, were not written any more."""
        if file_size(self.home / self.weights.name) is None:
            return True
        return self.path == self.home and self.weights.stat().st_mtime_ns < self.state.stat().st_mtime_ns

    def write_job(self, job: str) -> None:
        """Note the torchrun job that trains here, so that `run_of_job` finds the folder."""
        mark = self.home / _JOB
        if isinstance(mark, Path):
            with writing(mark):
                write_atomically(mark, job.encode())
        else:
            write_bytes(mark, job.encode())

    def write_config(self, settings: dict[str, Any]) -> None:
        with writing(self.config):
            write_atomically(self.config, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode())

    def write_plan(self, facts: dict[str, Any]) -> None:
        """What the settings come to: for whoever looks at the run, no run depends on it."""
        with writing(self.plan):
            write_atomically(self.plan, json.dumps(facts, indent=2).encode())

    def publish(self, patience_s: float = math.inf) -> None:
        """Put what has changed into the store, the state last: it speaks of all the others.

        StoreError when it does not take it, or a file's turn comes only when patience has run out.
        """
        until_s = monotonic() + patience_s
        if isinstance(self.home, Path):
            return
        files = [path for path in self.path.rglob("*") if path.is_file() and not path.name.startswith(".")]
        for path in sorted(files, key=lambda path: (path == self.state, path)):
            changed = _version(path)
            if self._published.get(path) != changed:
                if monotonic() > until_s:
                    raise StoreError(f"cannot write {self.home}: it takes longer than {patience_s / 60:g} minutes.")
                address = self.home / path.relative_to(self.path).as_posix()
                if path.suffix in _LARGE:
                    upload(path, address)
                else:  # TensorBoard may be writing to it
                    write_bytes(address, path.read_bytes())
                self._published[path] = changed

    def _remove_abandoned(self) -> None:
        """What killed processes of this run left here: the store has their last save. Only for whoever has the lock."""
        for path in self.path.parent.glob(f"{self.path.name.rpartition('-')[0]}-*"):
            if path != self.path and not path.name.endswith(_KEPT):
                shutil.rmtree(path, ignore_errors=True)

    def _fetch(self) -> None:
        for name in (_CONFIG, _JOURNAL, _STATE):
            if file_size(self.home / name) is not None:
                with writing(self.path / name):
                    write_atomically(self.path / name, read_bytes(self.home / name))
                self._published[self.path / name] = _version(self.path / name)

    def _bring_home(self, cause: BaseException | None = None) -> None:
        """What has changed, and then nothing is left here; else say where it is, in the error that ended the run."""
        try:
            self.publish()
        except StoreError as error:
            if self.weights.exists():  # before the first save there is nothing that anybody would miss
                kept = self.path.rename(f"{self.path}{_KEPT}")
                where = f"All files of the run are in {kept}: copy them to {self.home} once it can be written to"
                if cause is None:
                    raise RunError(f"{error} {where}") from error
                _add(where, cause)
        shutil.rmtree(self.path, ignore_errors=True)


def _add(sentence: str, error: BaseException) -> None:
    """To what an error says."""
    if isinstance(error, ReportedError | StoreError):
        said = str(error)
        error.args = (f"{said}{'' if said.endswith('.') else '.'} {sentence}",)
    elif isinstance(error, OSError):
        error.strerror = f"{error.strerror or error}. {sentence}"
    else:
        print(sentence, file=sys.stderr)  # Ctrl-C, or an error of ours, whose traceback follows


def _version(path: Path) -> tuple[int, int]:
    """Time of the last change in ns, and size in bytes."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _digest(address: Address) -> str:
    return hashlib.sha256(str(address).encode()).hexdigest()[:16]


def _temporary(name: str) -> Path:
    return Path(tempfile.gettempdir()) / name


@contextmanager
def new_run(out: Address, name: str | None, default_name: str) -> Iterator[RunFolder]:
    """The folder of a new run, locked: `name`, which must be free, or the first free one of default, default-2, ...

    Of processes that begin at the same moment each gets a name of its own, or the UsageError that it is taken; in a
    store, those of one machine.
    """
    with ExitStack() as stack:
        if name is not None:
            run = RunFolder(out / name)
            run.refuse_begun()  # before a lock is put there, and once more behind it
            yield stack.enter_context(run.locked(new=True))
        else:
            yield _first_free(stack, out, default_name)


def _first_free(stack: ExitStack, out: Address, default_name: str) -> RunFolder:
    for number in count(1):
        home = out / (default_name if number == 1 else f"{default_name}-{number}")
        if _is_claimed(home):
            with suppress(_Taken):  # by a process that was told this name, or, in a store, has not written yet
                return stack.enter_context(RunFolder(home).locked(new=True))
    raise AssertionError("there is always a free number")


def _is_claimed(home: Address) -> bool:
    """Whether the name was free. On a disk it is this process's now; in a store it is once the run is locked."""
    if not isinstance(home, Path):
        return not is_folder(home)
    try:
        home.mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise RunError(f"cannot write {home}: {error.strerror or error}") from error
    return True


def existing_run(out: Address, name: str | None) -> RunFolder:
    """The folder of the run to resume. UsageError lists the runs that there are when it is none of them."""
    folders = list_folders(out)
    if name in folders and file_size(out / name / _CONFIG) is not None:
        return RunFolder(out / name)
    runs = [folder for folder in folders if file_size(out / folder / _CONFIG) is not None]
    there = f"the runs in {out} are: {', '.join(runs)}" if runs else f"there are no runs in {out}"
    if name is None:
        raise UsageError(f"--resume needs the run's name: --run NAME; {there}")
    raise UsageError(f"--run {name} --resume: there is no {out / name / _CONFIG}; {there}")


def run_of_job(out: Address, name: str | None, job: str) -> RunFolder | None:
    """The folder that a torchrun job trains in, of that name if there is one; None before it has begun."""
    return next((RunFolder(mark.parent) for mark in _marks(out, name, job)), None)


def forget_job(out: Address, name: str | None, job: str) -> None:
    """Whatever was begun by an earlier torchrun job of the same name is not this one's to go on with."""
    for mark in _marks(out, name, job):
        remove(mark)


def _marks(out: Address, name: str | None, job: str) -> Iterator[Address]:
    for folder in list_folders(out):
        mark = out / folder / _JOB
        if name in (None, folder) and file_size(mark) is not None and read_bytes(mark).decode() == job:
            yield mark
