"""Storage in object stores, through fsspec. Requests are retried: see `retry`.

Integrity: the store's own library checks the length of an object against its header and, where the store has a
checksum of the complete object (S3 does for objects stored by recent clients), that checksum. Ranges of an object have
no checksum, so their readers must compare a hash of the complete object. Uploads carry a checksum where the library
sends one (S3: CRC32 or CRC64 of every request), and the size is checked afterwards.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from srshards.storage.base import PIECE_BYTES, ListedFile, Skipped, checked_piece
from srshards.storage.retry import StoreError, request
from srshards.storage.scratch import clear_scratch, scratch_folder, scratch_root
from srshards.storage.threads import map_in_threads

if TYPE_CHECKING:
    from upath import UPath

_S = TypeVar("_S")
_T = TypeVar("_T")

_CONCURRENT_PIECES = 4
_CONCURRENT_FETCHES = 8  # hides a latency of 100 ms behind 12 ms of work per file
# Large files are uploaded in parts held in memory; s3fs would use ten parts of 50 MB at a time.
_PARTS = {"chunksize": 16 << 20, "max_concurrency": 4}
_PROBE_NAME = ".shardgen.probe"


class FsspecStorage:
    """Storage in object stores. The methods are documented in `Storage`."""

    is_local = False

    def read_bytes(self, address: "UPath", size: int = 0) -> bytes:
        return request(address, "read", lambda fs, path, limit: bytes(fs.cat_file(path, **limit)), size)

    def read_range(self, address: "UPath", offset: int, size: int) -> bytes:
        end = offset + size
        return request(
            address, "read", lambda fs, path, limit: bytes(fs.cat_file(path, start=offset, end=end, **limit)), size
        )

    def pieces(self, address: "UPath", size: int) -> Iterator[bytes]:
        """Read several pieces concurrently. When a connection breaks, only its piece is requested again."""
        starts = range(0, size, PIECE_BYTES)

        def piece(start: int) -> bytes:
            return self.read_range(address, start, min(PIECE_BYTES, size - start))

        for start, future in zip(starts, map_in_threads(piece, starts, _CONCURRENT_PIECES), strict=True):
            yield checked_piece(address, future.result(), start, size)

    def read_large(self, address: "UPath", size: int) -> bytes:
        return b"".join(self.pieces(address, size))

    def prefetch(self, address: "UPath", offset: int, size: int) -> bytes | None:
        return self.read_range(address, offset, size)

    def map(self, action: Callable[[_S], _T], items: Iterable[_S], at_once: int) -> Iterator[_T]:
        return (result.result() for result in map_in_threads(action, items, at_once))

    def read_ahead(
        self, items: Sequence[_S], address_of: Callable[[_S], "UPath"], read: Callable[[_S], _T]
    ) -> Iterator[Callable[[], _T]]:
        return (result.result for result in map_in_threads(read, items, _CONCURRENT_FETCHES))

    def list_files(self, folder: "UPath") -> dict[str, int]:
        names = {entry["name"].rpartition("/")[2]: entry for entry in _entries(folder) if entry["type"] == "file"}
        return {name: int(entry["size"] or 0) for name, entry in names.items() if name and not name.startswith(".")}

    def list_folders(self, folder: "UPath") -> list[str]:
        entries = (entry for entry in _entries(folder) if entry["type"] == "directory")
        return sorted(filter(None, (entry["name"].rstrip("/").rpartition("/")[2] for entry in entries)))

    def find_files(self, folder: "UPath", extensions: Set[str], skipped: Skipped) -> Iterator[ListedFile]:
        """Use one recursive listing, which includes sizes and times."""
        try:
            entries = request(folder, "list", lambda fs, path, limit: fs.find(path, detail=True), pages=True)
        except FileNotFoundError:
            entries = {}
        root, found = folder.path.rstrip("/"), {}
        for name, entry in entries.items():
            if name.startswith(root + "/"):
                found[name[len(root) + 1 :]] = entry
        if not found:
            code = errno.ENOENT if self.file_size(folder) is None else errno.ENOTDIR
            raise OSError(code, os.strerror(code), str(folder))
        for path, entry in found.items():
            if path.endswith("/"):  # placeholder object for a folder
                continue
            if os.path.splitext(path)[1].lower() in extensions:
                yield ListedFile(path, int(entry["size"] or 0), _modified_ns(entry))
            else:
                skipped.files += 1

    def file_size(self, address: "UPath") -> int | None:
        try:
            info = request(address, "access", lambda fs, path, limit: fs.info(path, **limit))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return None if info["type"] != "file" else int(info["size"])

    def is_folder(self, address: "UPath") -> bool:
        """A folder exists if any object's address starts with it."""
        return bool(_entries(address))

    def modified_s(self, address: "UPath") -> float | None:
        """Return None: it would take another request."""
        return None

    def link_out_of(self, folder: "UPath", name: str) -> str | None:
        """Return None: stores have no links."""
        return None

    def write_bytes(self, address: "UPath", content: bytes) -> None:
        """Write the object in one request."""
        request(address, "write", lambda fs, path, limit: fs.pipe_file(path, content, **limit), len(content))

    def remove(self, address: "UPath") -> None:
        with suppress(FileNotFoundError):
            request(address, "remove", lambda fs, path, limit: fs.rm_file(path))

    def ensure_writable(self, folder: "UPath") -> None:
        """Write and remove a probe: stores have no folders to create."""
        self.write_bytes(folder / _PROBE_NAME, b"")
        self.remove(folder / _PROBE_NAME)

    def claim_folder(self, folder: "UPath") -> bool:
        """Only check: stores have no folders to create, so a lock must exclude other processes of this machine."""
        return not self.is_folder(folder)

    @contextmanager
    def staging(self, folder: "UPath") -> Iterator[Path]:
        with scratch_folder() as scratch:
            yield scratch

    def publish(self, staged: Path, address: "UPath") -> None:
        """Upload the file: stores have no rename, but uploads are atomic. StoreError unless the object then exists."""
        upload(staged, address)
        staged.unlink()

    def written_to(self, folder: "UPath") -> str:
        return f"{scratch_root()} (TMPDIR), before the upload"

    def remove_unfinished(self, folders: Iterable["UPath"]) -> None:
        """Clear the scratch folders of all stores: a store itself never has incomplete objects."""
        clear_scratch()

    def free_bytes(self, folder: "UPath") -> int | None:
        return None

    def lock_path(self, folder: "UPath", name: str) -> Path:
        """Return a local file: stores lack locks that end with their process. Other machines are not excluded."""
        return scratch_root() / f"{hashlib.sha256(str(folder).rstrip('/').encode()).hexdigest()[:16]}{name}"

    @contextmanager
    def presence_file(self, folder: "UPath") -> Iterator[Path | None]:
        yield None

    def join(self, folder: "UPath", path: str) -> "UPath":
        if any(part in ("", ".", "..") for part in path.split("/")):
            raise ValueError("its name is not a valid path: a part of it is empty, `.` or `..`")
        try:
            address: UPath = folder / path
        except ValueError as error:
            raise ValueError("its name would be read as an address in another store") from error
        if address.path != f"{folder.path.rstrip('/')}/{path}" or "?versionId=" in path:
            raise ValueError("its name would be read as another address")
        return address

    def absolute(self, address: "UPath") -> "UPath":
        return address

    def resolved(self, address: "UPath") -> "UPath":
        return address


def upload(local: Path, address: "UPath") -> None:
    """Upload a local file to a store. StoreError unless the object then has the same size."""
    size = local.stat().st_size
    parts = _PARTS if address.protocol in ("s3", "s3a") else {}
    request(address, "write", lambda fs, path, limit: fs.put_file(str(local), path, **limit, **parts), size)
    stored = FsspecStorage().file_size(address)
    if stored != size:
        found = "does not exist" if stored is None else f"has {stored:,} bytes"
        raise StoreError(f"{address} {found} after an upload of {size:,} bytes; run the same command again")


def _entries(folder: "UPath") -> list[dict[str, Any]]:
    try:
        found = request(folder, "list", lambda fs, path, limit: fs.ls(path, detail=True), pages=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    folder_name = folder.path.strip("/")
    return [entry for entry in found if entry["name"].strip("/") != folder_name]  # some stores list the folder itself


def _modified_ns(entry: dict[str, Any]) -> int:
    for key in ("LastModified", "mtime", "last_modified", "updated", "created"):
        value = entry.get(key)
        if isinstance(value, datetime):
            return round(value.timestamp() * 1e6) * 1000
        if isinstance(value, int | float):
            return int(value * 1e9)
    return -1
