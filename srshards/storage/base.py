"""The storage interface, implemented for local disks and object stores.

Callers get the storage of an address from `srshards.storage.store.storage_of` instead of testing the kind of address.
Methods accept addresses of their own kind only. Disks raise OSError, stores StoreError; both raise FileNotFoundError.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from srshards.storage.retry import StoreError

A = TypeVar("A")  # an address: a Path, or a UPath
_S = TypeVar("_S")
_T = TypeVar("_T")

PIECE_BYTES = 8 << 20  # unit in which large files are read, and retried when a connection breaks


class ListedFile(NamedTuple):
    """A file of a listing: its path relative to the folder (`/`-separated), size in bytes, modification time in ns.

    Size and time are -1 if unknown.
    """

    path: str
    size: int
    mtime_ns: int


@dataclass
class Skipped:
    """Counts of what a listing skipped: other files, and links to folders that are already listed."""

    files: int = 0
    links: int = 0


class Storage(Protocol[A]):
    """Files and folders under addresses of one kind.

    `is_local` means that they are in this machine's file system: they can be mapped, locked, appended to and renamed,
    and other machines may see other files under the same path.
    """

    @property
    def is_local(self) -> bool: ...

    # Reading

    def read_bytes(self, address: A, size: int = 0) -> bytes:
        """Return the content of a file, in one request. The expected `size` extends the timeout for large files."""

    def read_range(self, address: A, offset: int, size: int) -> bytes:
        """Return `size` bytes of a file from `offset` on; fewer if the file is shorter."""

    def pieces(self, address: A, size: int) -> Iterator[bytes]:
        """Yield the first `size` bytes of a large file, in order. StoreError when it is shorter."""

    def read_large(self, address: A, size: int) -> bytes:
        """Return the first `size` bytes of a large file. StoreError when it is shorter."""

    def prefetch(self, address: A, offset: int, size: int) -> bytes | None:
        """Return a range from which several parts will be read; None where separate reads cost no more."""

    def map(self, action: Callable[[_S], _T], items: Iterable[_S], at_once: int) -> Iterator[_T]:
        """Yield `action(item)` for each item, in order; in a store, up to `at_once` run concurrently."""

    def read_ahead(
        self, items: Sequence[_S], address_of: Callable[[_S], A], read: Callable[[_S], _T]
    ) -> Iterator[Callable[[], _T]]:
        """Yield for each item, in order, a function that returns `read(item)`, prefetching the next files."""

    # Listing

    def list_files(self, folder: A) -> dict[str, int]:
        """Return names and sizes of the non-hidden files directly in a folder; none if the folder does not exist."""

    def list_folders(self, folder: A) -> list[str]:
        """Return the sorted names of the folders directly in a folder; none if the folder does not exist."""

    def find_files(self, folder: A, extensions: Set[str], skipped: Skipped) -> Iterator[ListedFile]:
        """Yield all files below a folder with one of these extensions (`.jpg`, in lower case), in no particular order.

        FileNotFoundError when the folder does not exist, NotADirectoryError for a file; OSError for a folder that
        cannot be listed.
        """

    def file_size(self, address: A) -> int | None:
        """Return the size of a file in bytes; None if it does not exist."""

    def is_folder(self, address: A) -> bool:
        """Return whether the folder exists; in a store, whether any object is below the address."""

    def modified_s(self, address: A) -> float | None:
        """Return the modification time of a file in seconds since 1970; None where that would take a request."""

    def link_out_of(self, folder: A, name: str) -> str | None:
        """Return an error message if a file is a link out of its folder or not a regular file; otherwise None.

        Check this before reading: pipes and devices may never end. The folder itself may be a link.
        """

    # Writing

    def write_bytes(self, address: A, content: bytes) -> None:
        """Write a small file atomically."""

    def remove(self, address: A) -> None:
        """Remove a file if it exists."""

    def ensure_writable(self, folder: A) -> None:
        """Create the folder, or in a store write a probe. OSError or StoreError when that fails."""

    def claim_folder(self, folder: A) -> bool:
        """Return whether the folder did not exist. On a disk it is created, which claims it for this process."""

    def staging(self, folder: A) -> AbstractContextManager[Path]:
        """Yield a local folder in which to write files for `publish`: `folder` itself if it is local.

        For an OSError while writing there, `written_to` returns the folder to name in the message.
        """

    def publish(self, staged: Path, address: A) -> None:
        """Move a file from the `staging` folder to its address."""

    def written_to(self, folder: A) -> str:
        """Return where files for the folder are written first, for messages about a full disk."""

    def remove_unfinished(self, folders: Iterable[A]) -> None:
        """Remove incomplete files of killed processes. The caller must hold the folders' lock."""

    def free_bytes(self, folder: A) -> int | None:
        """Return the free space for the folder, which need not exist; None if unlimited."""

    def lock_path(self, folder: A, name: str) -> Path:
        """Return the lock file of a folder: inside it or, for a store, a file of this user on this machine."""

    def presence_file(self, folder: A) -> AbstractContextManager[Path | None]:
        """Create a hidden file in the folder for the duration of the block, so that machines can tell if they share it.

        Yields None where all machines see the same files.
        """

    # Addresses

    def join(self, folder: A, path: str) -> A:
        """Return the address of a file below a folder. ValueError when the path is not valid below the folder."""

    def absolute(self, address: A) -> A:
        """Return the absolute address, without `.` and `..`. Links are not resolved."""

    def resolved(self, address: A) -> A:
        """Return the canonical address, equal for all addresses of the same file."""


def checked_piece(address: object, piece: bytes, start: int, size: int) -> bytes:
    """Return the piece at `start` of a file of `size` bytes. StoreError when it is too short."""
    if len(piece) != min(PIECE_BYTES, size - start):
        raise StoreError(f"{address}: expected {size:,} bytes, but it ends after {start + len(piece):,}")
    return piece
