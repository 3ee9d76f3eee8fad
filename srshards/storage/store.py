"""Where photos, shards and runs lie: a folder of this machine, or an address in a store that fsspec knows.

An address is a `pathlib.Path` for what is local, and a `UPath` (`s3://bucket/shards`, `gs://...`) for what is not. Both
join with `/` and have `name`, `stem` and `parent`; reading and writing goes through this room, which tries again when a
store stumbles (with a growing pause), gives up on one that is silent, and says what happened. Credentials, endpoints
and proxies are taken from wherever each store's own library takes them.

What is checked: an object that comes has the length that its header promises, and, where the store gives a checksum of
all of it (S3 does for what recent clients have stored), that checksum, in the store's own library. Ranges of an object
have no checksum: whoever reads those compares a hash of the whole. What is sent carries a checksum where the library
sends one (S3: CRC32 or CRC64 of every request), and its size is asked for afterwards.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from srshards.format import Address
from srshards.process.limits import shortage
from srshards.storage.ahead import ahead
from srshards.storage.files import write_atomically
from srshards.storage.retry import ATTEMPTS, ATTEMPTS_OF_LIBRARY, AddressError, StoreError, ask, silence_s

if TYPE_CHECKING:
    from upath import UPath

__all__ = (
    "ATTEMPTS",
    "AddressError",
    "Found",
    "StoreError",
    "file_size",
    "find_files",
    "is_folder",
    "is_local",
    "list_files",
    "list_folders",
    "parse_address",
    "pieces",
    "read_bytes",
    "read_many",
    "read_range",
    "remove",
    "remove_many",
    "silence_s",
    "upload",
    "write_bytes",
)

_PIECE_BYTES = 8 << 20  # of a large object: what is read at once, and again when a connection breaks
_PIECES_AT_ONCE = 4
_SMALL_FILES_AT_ONCE = 32
# A large file goes in parts, which are held in memory: by default s3fs would take 50 MB for each, ten at once.
_PARTS = {"chunksize": 16 << 20, "max_concurrency": 4}


class Found(NamedTuple):
    """A file of a listing: its address relative to the folder (`/`-separated), size in bytes, time of change in ns.

    The time is -1 where the store does not say.
    """

    path: str
    size: int
    mtime_ns: int


def parse_path(text: str) -> Path:
    """`~/photos` is in the home folder. Shells see to that, but none in `--input=~/a`, and few in `INPUT=~/a`.

    AddressError for an empty text, which Python takes for the working directory.
    """
    if not text:
        raise AddressError("the path is empty; expected a folder or a file, or . for the working directory")
    return Path(text).expanduser() if text == "~" or text.startswith("~/") else Path(text)


def parse_address(text: str) -> Address:
    """`./photos`, `~/photos` and `file:///data/photos` are paths; `s3://bucket/photos` lies in a store.

    AddressError when there is no such kind of store, or its package is missing.
    """
    protocol, separator, rest = text.partition("://")
    if not separator:
        return parse_path(text)
    if protocol in ("file", "local"):
        return Path(rest) if rest else parse_path(rest)
    import fsspec  # not before something lies in a store: see `ask`
    from upath import UPath

    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise AddressError(f"{text}: {protocol}:// needs another package: {_package(protocol, error)}") from error
    except ValueError as error:
        raise AddressError(
            f"{text}: there is no store {protocol}://; expected a folder, or e.g. s3://bucket/folder, gs://bucket/folder"
        ) from error
    if not rest.strip("/"):
        raise AddressError(f"{text} names no place in the store; expected e.g. {protocol}://bucket/folder")
    address: UPath = UPath(text.rstrip("/"), **_options(protocol))
    return address


def is_local(address: Address) -> bool:
    return isinstance(address, Path)


def read_bytes(address: Address, size: int = 0) -> bytes:
    """All of a file. FileNotFoundError when it is not there; StoreError when the store does not give it.

    With `size`, what it is expected to have in bytes, a large file may take its time.
    """
    if isinstance(address, Path):
        return address.read_bytes()
    return ask(address, "read", lambda fs, path, limit: bytes(fs.cat_file(path, **limit)), size)


def read_range(address: Address, offset: int, size: int) -> bytes:
    """`size` bytes of a file from `offset` on; fewer where it ends before."""
    if isinstance(address, Path):
        with open(address, "rb") as file:
            file.seek(offset)
            return file.read(size)
    end = offset + size
    return ask(address, "read", lambda fs, path, limit: bytes(fs.cat_file(path, start=offset, end=end, **limit)), size)


def read_many(addresses: Sequence[Address]) -> list[bytes | None]:
    """Small files of a store, many at a time. None for each that is not there."""

    def read(address: Address) -> bytes | None:
        try:
            return read_bytes(address)
        except FileNotFoundError:
            return None

    return [content.result() for content in ahead(read, addresses, _SMALL_FILES_AT_ONCE)]


def write_bytes(address: Address, content: bytes) -> None:
    """Put a small file in its place: it is there whole or not at all.

    In a store that is one request, or StoreError; OSError here.
    """
    if isinstance(address, Path):
        write_atomically(address, content)
        return
    ask(address, "write", lambda fs, path, limit: fs.pipe_file(path, content, **limit), len(content))


def upload(local: Path, address: "UPath") -> None:
    """Put a file of this machine into a store. StoreError unless it has the same size there afterwards."""
    size = local.stat().st_size
    parts = _PARTS if address.protocol in ("s3", "s3a") else {}
    ask(address, "write", lambda fs, path, limit: fs.put_file(str(local), path, **limit, **parts), size)
    arrived = file_size(address)
    if arrived != size:
        found = "is not there" if arrived is None else f"has {arrived:,} bytes"
        raise StoreError(f"{address} {found} after {size:,} bytes were sent: the store lost some. Run it again.")


def pieces(address: Address, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a large file, in order, some of them on their way at any time.

    A piece whose connection breaks is asked for again, not the whole. StoreError when the file ends before.
    """
    starts = range(0, size, _PIECE_BYTES)

    def piece(start: int) -> bytes:
        return read_range(address, start, min(_PIECE_BYTES, size - start))

    for start, coming in zip(starts, ahead(piece, starts, _PIECES_AT_ONCE), strict=True):
        content = coming.result()
        if len(content) != min(_PIECE_BYTES, size - start):
            raise StoreError(f"{address} ends after {start + len(content):,} bytes; expected {size:,}")
        yield content


def list_files(folder: Address) -> dict[str, int]:
    """Names and sizes of the files right in a folder, but not of hidden ones. Nothing when there is no such folder."""
    if isinstance(folder, Path):
        return dict(_local_files(folder))
    names = {entry["name"].rpartition("/")[2]: entry for entry in _entries(folder) if entry["type"] == "file"}
    return {name: int(entry["size"] or 0) for name, entry in names.items() if name and not name.startswith(".")}


def _local_files(folder: Path) -> Iterator[tuple[str, int]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(OSError):  # gone meanwhile, or a link that leads to itself
                    if not entry.name.startswith(".") and entry.is_file():
                        yield entry.name, entry.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if shortage(error):
            raise
        raise StoreError(f"cannot list {folder}: {error.strerror}. Mend its permissions.") from error


def list_folders(folder: Address) -> list[str]:
    """Names of the folders right in a folder, in order. Nothing when there is no such folder."""
    if isinstance(folder, Path):
        try:
            return sorted(path.name for path in folder.iterdir() if path.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
    names = (entry["name"].rstrip("/").rpartition("/")[2] for entry in _entries(folder) if entry["type"] == "directory")
    return sorted(name for name in names if name)


def find_files(folder: "UPath") -> Iterator[Found]:
    """All files below a folder of a store, in no particular order."""
    listed = ask(folder, "list", lambda fs, path, limit: (path.rstrip("/"), fs.find(path, detail=True)), pages=True)
    root, entries = listed
    for name, entry in entries.items():
        if name.startswith(root + "/"):
            yield Found(name[len(root) + 1 :], int(entry["size"] or 0), _changed_ns(entry))


def file_size(address: Address) -> int | None:
    """Bytes of a file; None when there is none."""
    try:
        if isinstance(address, Path):
            return address.stat().st_size
        info = ask(address, "look at", lambda fs, path, limit: fs.info(path, **limit))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if info["type"] != "file" else int(info["size"])


def is_folder(address: Address) -> bool:
    """Whether anything lies there; in a store, a folder is what some file's address begins with."""
    if isinstance(address, Path):
        return address.is_dir()
    return bool(_entries(address))


def remove(address: Address) -> None:
    """Remove a file, if it is there."""
    if isinstance(address, Path):
        address.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError):
        ask(address, "remove", lambda fs, path, limit: fs.rm_file(path))


def remove_many(addresses: Sequence[Address]) -> None:
    """Remove small files, many at a time. Each that is asked for is gone afterwards, in no particular order."""
    for removed in ahead(remove, addresses, _SMALL_FILES_AT_ONCE):
        removed.result()


def _entries(folder: "UPath") -> list[dict[str, Any]]:
    try:
        found = ask(folder, "list", lambda fs, path, limit: fs.ls(path, detail=True), pages=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    here = folder.path.strip("/")
    return [entry for entry in found if entry["name"].strip("/") != here]  # some stores list the folder itself


def _changed_ns(entry: dict[str, Any]) -> int:
    for key in ("LastModified", "mtime", "last_modified", "updated", "created"):
        value = entry.get(key)
        if isinstance(value, datetime):
            return round(value.timestamp() * 1e6) * 1000
        if isinstance(value, int | float):
            return int(value * 1e9)
    return -1


def _options(protocol: str) -> dict[str, Any]:
    """What a store's library is told beyond what the user has configured for fsspec."""
    if protocol not in ("s3", "s3a"):
        return {}
    import fsspec

    # Small objects come in one request, not after one that asks for the size; large ones are asked for in pieces.
    options: dict[str, Any] = {"max_concurrency": 1}
    if "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        # Its own patience is an hour and more where a server says nothing.
        patience = {"connect_timeout": min(10.0, silence_s()), "read_timeout": silence_s()}
        options["config_kwargs"] = {**patience, "retries": {"total_max_attempts": ATTEMPTS_OF_LIBRARY}}
    return options


def _package(protocol: str, error: ImportError) -> str:
    known = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
    return f"pip install {known[protocol]}" if protocol in known else str(error)
