"""Local files."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from srshards.process.shortages import shortage
from srshards.storage.base import PIECE_BYTES, ListedFile, Skipped, checked_piece
from srshards.storage.files import remove_temporaries, temporary_path, write_atomically
from srshards.storage.folder_tree import find_files
from srshards.storage.retry import StoreError

_S = TypeVar("_S")
_T = TypeVar("_T")

_READ_AHEAD_FILES = 4  # enough to hide a disk's seeks behind the work on each file


class LocalStorage:
    """The local file system. `Storage` documents the methods."""

    is_local = True

    def read_bytes(self, address: Path, size: int = 0) -> bytes:
        return address.read_bytes()

    def read_range(self, address: Path, offset: int, size: int) -> bytes:
        with open(address, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def pieces(self, address: Path, size: int) -> Iterator[bytes]:
        with open(address, "rb") as file:
            for start in range(0, size, PIECE_BYTES):
                yield checked_piece(address, file.read(min(PIECE_BYTES, size - start)), start, size)

    def read_large(self, address: Path, size: int) -> bytes:
        return address.read_bytes()

    def prefetch(self, address: Path, offset: int, size: int) -> bytes | None:
        return None

    def map(self, action: Callable[[_S], _T], items: Iterable[_S], at_once: int) -> Iterator[_T]:
        return map(action, items)

    def read_ahead(
        self, items: Sequence[_S], address_of: Callable[[_S], Path], read: Callable[[_S], _T]
    ) -> Iterator[Callable[[], _T]]:
        for item in items[:_READ_AHEAD_FILES]:
            _read_ahead(address_of(item))
        for number, item in enumerate(items):
            for upcoming in items[number + _READ_AHEAD_FILES : number + _READ_AHEAD_FILES + 1]:
                _read_ahead(address_of(upcoming))
            yield partial(read, item)

    def list_files(self, folder: Path) -> dict[str, int]:
        return dict(_sizes(folder))

    def list_folders(self, folder: Path) -> list[str]:
        try:
            return sorted(path.name for path in folder.iterdir() if path.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def find_files(self, folder: Path, extensions: Set[str], skipped: Skipped) -> Iterator[ListedFile]:
        return find_files(folder, extensions, skipped)

    def file_size(self, address: Path) -> int | None:
        try:
            return address.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_folder(self, address: Path) -> bool:
        return address.is_dir()

    def modified_s(self, address: Path) -> float | None:
        return address.stat().st_mtime

    def link_out_of(self, folder: Path, name: str) -> str | None:
        path = folder / name
        target = Path(os.path.realpath(path))  # `resolve` raises for a link that leads to itself
        if path.is_symlink() and target.parent != Path(os.path.realpath(path.parent)):
            return f"{path} is a link to {target}, outside its folder; replace it with the file itself"
        not_a_file = path.exists() and not path.is_file()
        return f"{path} is not a regular file; replace it with the file itself" if not_a_file else None

    def write_bytes(self, address: Path, content: bytes) -> None:
        write_atomically(address, content)

    def remove(self, address: Path) -> None:
        address.unlink(missing_ok=True)

    def ensure_writable(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def claim_folder(self, folder: Path) -> bool:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            return False
        return True

    @contextmanager
    def staging(self, folder: Path) -> Iterator[Path]:
        yield folder

    def publish(self, staged: Path, address: Path) -> None:
        assert staged == address, "local files are staged at their final address"

    def written_to(self, folder: Path) -> str:
        return str(folder)

    def remove_unfinished(self, folders: Iterable[Path]) -> None:
        for folder in folders:
            remove_temporaries(folder)

    def free_bytes(self, folder: Path) -> int | None:
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def lock_path(self, folder: Path, name: str) -> Path:
        return folder / name

    @contextmanager
    def presence_file(self, folder: Path) -> Iterator[Path | None]:
        marker = temporary_path(folder.absolute() / "present")
        marker.touch()
        try:
            yield marker
        finally:
            marker.unlink(missing_ok=True)

    def join(self, folder: Path, path: str) -> Path:
        return folder / path

    def absolute(self, address: Path) -> Path:
        return Path(os.path.abspath(address))

    def resolved(self, address: Path) -> Path:
        return Path(os.path.realpath(address))


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(OSError):  # removed in the meantime, or a link to itself
                    if not entry.name.startswith(".") and entry.is_file():
                        yield entry.name, entry.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if shortage(error):
            raise
        raise StoreError(f"cannot list {folder}: {error.strerror}; fix its permissions (chmod u+rx)") from error


def _read_ahead(path: Path) -> None:
    """Start reading the file into the page cache, without waiting, where the system supports that."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(fd)
