"""What a place for files has to offer, be it a disk of this machine or an object store.

Code asks an address's storage (`srshards.storage.store.storage_of`) instead of asking what kind of address it is. All
methods take addresses of their own kind. OSError comes from a disk, StoreError from a store; FileNotFoundError from
both.
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

PIECE_BYTES = 8 << 20  # of a large file: what is read at once, and again when a connection breaks


class Found(NamedTuple):
    """A file of a listing: its path relative to the folder (`/`-separated), size in bytes, time of change in ns.

    Both are -1 where they are not known.
    """

    path: str
    size: int
    mtime_ns: int


@dataclass
class PassedOver:
    """What a listing came across and left out: other files, and links to folders that are listed already."""

    files: int = 0
    links: int = 0


class Storage(Protocol[A]):
    """Files and folders under addresses of one kind.

    `is_local` says that they are files of this machine's file system, which can be mapped, locked, appended to and
    renamed, and that other machines may see something else under the same path. What depends on that asks here.
    """

    @property
    def is_local(self) -> bool: ...

    # Reading

    def read_bytes(self, address: A, size: int = 0) -> bytes:
        """All of a file, in one request. With `size`, which it is expected to have, a large one may take its time."""

    def read_range(self, address: A, offset: int, size: int) -> bytes:
        """`size` bytes of a file from `offset` on; fewer where it ends before."""

    def pieces(self, address: A, size: int) -> Iterator[bytes]:
        """The first `size` bytes of a large file, in order. StoreError when it ends before."""

    def read_large(self, address: A, size: int) -> bytes:
        """The same, as one."""

    def prefetch(self, address: A, offset: int, size: int) -> bytes | None:
        """A range of which several parts will be read; None where reading each by itself costs no more."""

    def map(self, action: Callable[[_S], _T], items: Iterable[_S], at_once: int) -> Iterator[_T]:
        """What `action`, which asks for something here, gives for each item, in order: `at_once` if that is faster."""

    def in_advance(
        self, items: Sequence[_S], address_of: Callable[[_S], A], read: Callable[[_S], _T]
    ) -> Iterator[Callable[[], _T]]:
        """For each item, in order, what gives the result of `read`: the files of the next ones are on their way."""

    # Listing

    def list_files(self, folder: A) -> dict[str, int]:
        """Names and sizes of the files right in a folder, but not of hidden ones. Nothing without such a folder."""

    def list_folders(self, folder: A) -> list[str]:
        """Names of the folders right in a folder, in order. Nothing when there is no such folder."""

    def find_files(self, folder: A, extensions: Set[str], passed_over: PassedOver) -> Iterator[Found]:
        """All files below a folder with one of these extensions (`.jpg`, in lower case), in no particular order.

        FileNotFoundError without such a folder, NotADirectoryError for a file; OSError names a folder that cannot be
        listed.
        """

    def file_size(self, address: A) -> int | None:
        """Bytes of a file; None when there is none."""

    def is_folder(self, address: A) -> bool:
        """Whether anything lies there."""

    def modified_s(self, address: A) -> float | None:
        """When a file was last changed, in seconds since 1970; None where that is not at hand."""

    def link_out_of(self, folder: A, name: str) -> str | None:
        """What is wrong with a file that is a link out of its folder, or not a plain file; None when it is not.

        To be asked before it is read: pipes and devices may never end. The folder may well be a link.
        """

    # Writing

    def write_bytes(self, address: A, content: bytes) -> None:
        """Put a small file in its place: it is there whole or not at all."""

    def remove(self, address: A) -> None:
        """Remove a file, if it is there."""

    def ensure_writable(self, folder: A) -> None:
        """Make the folder, or try whether files can be put there. OSError or StoreError when they cannot."""

    def claim_folder(self, folder: A) -> bool:
        """Whether the folder is free; on a disk it is made, and this process's from now on."""

    def staging(self, folder: A) -> AbstractContextManager[Path]:
        """A folder of this machine to make files in which `publish` then puts in their places below `folder`.

        It is `folder` itself where it lies on this machine. OSError of writing there is to be told by `written_to`.
        """

    def publish(self, staged: Path, address: A) -> None:
        """Put a file that was made in `staging` in its place. It is gone from there unless that is its place."""

    def written_to(self, folder: A) -> str:
        """Where a full disk has to be looked for when files for the folder cannot be made."""

    def remove_unfinished(self, folders: Iterable[A]) -> None:
        """Remove what killed processes left half-written for them. Only for whoever holds the folders' lock."""

    def free_bytes(self, folder: A) -> int | None:
        """How much can still be written to the folder, which need not exist; None where there is no end to it."""

    def lock_path(self, folder: A, name: str) -> Path:
        """The file to lock for a folder: in it, or, for a store, one of this user on this machine."""

    def presence(self, folder: A) -> AbstractContextManager[Path | None]:
        """A hidden file in the folder for as long as the block lasts, by which machines see that they share it.

        None where all machines see the same.
        """

    # Addresses

    def join(self, folder: A, path: str) -> A:
        """The address of a file below a folder. ValueError when the path would be taken for something else."""

    def absolute(self, address: A) -> A:
        """The same without `.` and `..`, whatever the working directory is. Links stay as they are."""

    def resolved(self, address: A) -> A:
        """Equal for addresses of the same file."""


def whole_piece(address: object, piece: bytes, start: int, size: int) -> bytes:
    """The piece that begins at `start` of `size` bytes. StoreError when it is not whole."""
    if len(piece) != min(PIECE_BYTES, size - start):
        raise StoreError(f"{address} ends after {start + len(piece):,} bytes; expected {size:,}")
    return piece
