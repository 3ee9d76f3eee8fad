"""A run folder in an object store: the run works in a local folder, and changed files are uploaded."""

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

_KEPT = "-kept"  # suffix of a local folder that an error message points to and that must not be removed
_LARGE = (".pt", ".pth")  # replaced atomically, so they do not change during an upload


class StoredRunFolder(RunFolder):
    """Downloads the files needed to resume, and uploads changed files at every save, the state last.

    The lock excludes only processes on this machine.
    """

    def __init__(self, home: Address) -> None:
        super().__init__(home, _temporary(f"sr-run-{_digest(home)}-{secrets.token_hex(4)}"))
        self._published: dict[Path, tuple[int, int]] = {}  # by file: its `_version` when it was uploaded

    def is_missing_state(self) -> bool:
        return False  # the weights are uploaded before the state

    def is_missing(self, weights: Path) -> bool:
        return file_size(self.home / weights.name) is None

    def _create(self) -> None:
        """Do nothing: the first file that is written creates the folder."""

    def _discard(self, existing: set[Path]) -> None:
        with suppress(StoreError):
            remove_many(self.home, [JOB, *(path.relative_to(self.path).as_posix() for path in self._published)])
        shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def _session(self) -> Iterator[None]:
        self._remove_abandoned()
        try:
            self._fetch()
            yield
        except BaseException as error:
            if isinstance(error, UsageError):  # its message refers to the downloaded files
                error.args = (str(error).replace(str(self.path), str(self.home)),)
            self._finish(error)
            raise
        else:
            self._finish()

    def publish(self, patience_s: float = math.inf) -> None:
        """Upload changed files, the state last because it refers to the others.

        StoreError if the upload fails, or if `patience_s` has passed before the last file.
        """
        deadline_s = monotonic() + patience_s
        files = [path for path in self.path.rglob("*") if path.is_file() and not path.name.startswith(".")]
        for path in sorted(files, key=lambda path: (path == self.state, path)):
            version = _version(path)
            if self._published.get(path) != version:
                if monotonic() > deadline_s:
                    raise StoreError(f"cannot write {self.home}: timed out after {patience_s / 60:g} minutes")
                address: Any = self.home / path.relative_to(self.path).as_posix()
                if path.suffix in _LARGE:
                    upload(path, address)
                else:  # TensorBoard may be appending to it
                    write_bytes(address, path.read_bytes())
                self._published[path] = version

    def _remove_abandoned(self) -> None:
        """Remove local folders of killed processes of this run; requires the lock. The store has their last save."""
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

    def _finish(self, cause: BaseException | None = None) -> None:
        """Upload changed files and remove the local folder, or keep it and say where it is in the error `cause`."""
        try:
            self.publish()
        except StoreError as error:
            if self.weights.exists():  # before the first save, nothing is worth keeping
                kept = self.path.rename(f"{self.path}{_KEPT}")
                advice = f"The files of the run were kept in {kept}: copy them to {self.home} once it is writable"
                if cause is None:
                    raise RunError(f"{error}. {advice}") from error
                _append_to_message(advice, cause)
        shutil.rmtree(self.path, ignore_errors=True)


def _append_to_message(sentence: str, error: BaseException) -> None:
    if isinstance(error, ReportedError | StoreError):
        message = str(error)
        error.args = (f"{message}{'' if message.endswith('.') else '.'} {sentence}",)
    elif isinstance(error, OSError):
        error.strerror = f"{error.strerror or error}. {sentence}"
    else:
        print(sentence, file=sys.stderr)  # Ctrl-C, or a bug, whose traceback follows


def _version(path: Path) -> tuple[int, int]:
    """Return the time of the last modification in ns and the size in bytes."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _digest(address: Address) -> str:
    return hashlib.sha256(str(address).encode()).hexdigest()[:16]


def _temporary(name: str) -> Path:
    return Path(tempfile.gettempdir()) / name
