"""The folder of a run that lies in a store: it works in one of this machine, and what has changed goes there."""

import hashlib
import math
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

from srshards.errors import ReportedError, RunError, UsageError
from srshards.format import Address
from srshards.storage.files import write_atomically, writing
from srshards.storage.remote import upload
from srshards.storage.store import StoreError, file_size, read_bytes, remove_many, write_bytes
from trainer.runs.folder import CONFIG, JOB, JOURNAL, STATE, RunFolder

_KEPT = "-kept"  # ends the name of a folder that whoever runs has been told to look into
_LARGE = (".pt", ".pth")  # and never written to once they have their names


class StoredRunFolder(RunFolder):
    """Fetches what resuming needs, and puts what has changed into the store with every save, the state last.

    Its lock keeps out the processes of this machine alone.
    """

    def __init__(self, home: Address) -> None:
        super().__init__(home, _temporary(f"sr-run-{_digest(home)}-{secrets.token_hex(4)}"))
        self._published: dict[Path, tuple[int, int]] = {}  # by file: the time of its last change, and its size then

    def has_lost_its_state(self) -> bool:
        return False  # the weights come first

    def lacks_its_weights(self) -> bool:
        return file_size(self.home / self.weights.name) is None

    def _make(self) -> None:
        """What is written makes it."""

    def _discard(self, there: set[Path]) -> None:
        with suppress(StoreError):
            remove_many(self.home, [JOB, *(path.relative_to(self.path).as_posix() for path in self._published)])
        shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def _work(self) -> Iterator[None]:
        self._remove_abandoned()
        try:
            self._fetch()
            yield
        except BaseException as error:
            if isinstance(error, UsageError):  # it speaks of what was fetched
                error.args = (str(error).replace(str(self.path), str(self.home)),)
            self._bring_home(error)
            raise
        else:
            self._bring_home()

    def publish(self, patience_s: float = math.inf) -> None:
        """Put what has changed into the store, the state last: it speaks of all the others.

        StoreError when it does not take it, or a file's turn comes only when patience has run out.
        """
        until_s = monotonic() + patience_s
        files = [path for path in self.path.rglob("*") if path.is_file() and not path.name.startswith(".")]
        for path in sorted(files, key=lambda path: (path == self.state, path)):
            changed = _version(path)
            if self._published.get(path) != changed:
                if monotonic() > until_s:
                    raise StoreError(f"cannot write {self.home}: it takes longer than {patience_s / 60:g} minutes.")
                address: Any = self.home / path.relative_to(self.path).as_posix()
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
        for name in (CONFIG, JOURNAL, STATE):
            size = file_size(self.home / name)
            if size is not None:
                content = read_bytes(self.home / name, size)
                with writing(self.path / name):
                    write_atomically(self.path / name, content)
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
