"""Where photos, shards and runs lie: a folder of this machine, or an address in a store that fsspec knows.

An address is a `pathlib.Path` for what is local, and a `UPath` (`s3://bucket/shards`, `gs://...`) for what is not. Both
join with `/` and have `name`, `stem` and `parent`; reading and writing goes through this room, which tries again when a
store stumbles (with a growing pause), gives up on one that is silent, and says what happened. Credentials, endpoints
and proxies are taken from wherever each store's own library takes them.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, TypeVar

import fsspec
from fsspec.asyn import AsyncFileSystem
from tenacity import RetryCallState, Retrying, retry_if_not_exception_type, stop_after_attempt, wait_random_exponential
from upath import UPath

from shardgen.format import Address

_T = TypeVar("_T")

ATTEMPTS = 6
_PIECE_BYTES = 8 << 20  # of a large object: what is read at once, and again when a connection breaks
_PIECES_AT_ONCE = 4
_LONGEST_PAUSE_S = 10.0
_SLOWEST_BYTES_PER_S = 250_000  # below this an upload counts as stuck
# Nothing gets better by trying again.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError, MemoryError)


class StoreError(Exception):
    """A store did not do what was asked, however often. The message names the address, the reason and what to do."""

    exit_code = 1


class AddressError(StoreError):
    """An address that nothing can lie at: an unknown kind of store, or one whose package is not installed."""

    exit_code = 2


class Found(NamedTuple):
    """A file of a listing: its address relative to the folder (`/`-separated), size in bytes, time of change in ns.

    The time is -1 where the store does not say.
    """

    path: str
    size: int
    mtime_ns: int


def parse_address(text: str) -> Address:
    """`./photos`, `/data/photos` and `file:///data/photos` are paths; `s3://bucket/photos` lies in a store.

    AddressError when there is no such kind of store, or its package is missing.
    """
    protocol, separator, rest = text.partition("://")
    if not separator:
        return Path(text)
    if protocol in ("file", "local"):
        return Path(rest)
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


def silence_s() -> float:
    """How long a store may say nothing before it is asked again: SR_STORE_TIMEOUT seconds, 30 by default."""
    return float(os.environ.get("SR_STORE_TIMEOUT", "30"))


def read_bytes(address: Address) -> bytes:
    """All of a file. FileNotFoundError when it is not there; StoreError when the store does not give it."""
    if isinstance(address, Path):
        return address.read_bytes()
    return _asked(address, "read", lambda fs, path, limit: bytes(fs.cat_file(path, **limit)))


def read_range(address: Address, offset: int, size: int) -> bytes:
    """`size` bytes of a file from `offset` on; fewer where it ends before."""
    if isinstance(address, Path):
        with open(address, "rb") as file:
            file.seek(offset)
            return file.read(size)
    return _asked(
        address, "read", lambda fs, path, limit: bytes(fs.cat_file(path, start=offset, end=offset + size, **limit))
    )


def read_many(addresses: list[UPath]) -> list[bytes | None]:
    """Small files of a store, many at a time. None for each that is not there."""

    def read(address: UPath) -> bytes | None:
        try:
            return read_bytes(address)
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(32, "store") as pool:
        return list(pool.map(read, addresses))


def write_bytes(address: UPath, content: bytes) -> None:
    """Put a small file into a store: one request, so it is there whole or not at all wherever a store can do that."""
    _asked(address, "write", lambda fs, path, limit: fs.pipe_file(path, content, **limit), len(content))


def upload(local: Path, address: UPath) -> None:
    """Put a file of this machine into a store. StoreError unless it has the same size there afterwards."""
    size = local.stat().st_size
    _asked(address, "write", lambda fs, path, limit: fs.put_file(str(local), path, **limit), size)
    arrived = file_size(address)
    if arrived != size:
        raise StoreError(f"{address} has {arrived} bytes after {size:,} were sent: the store lost some. Try again.")


def pieces(address: Address, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a large file, in order, some of them on their way at any time.

    A piece whose connection breaks is asked for again, not the whole. StoreError when the file ends before.
    """
    starts = range(0, size, _PIECE_BYTES)
    with ThreadPoolExecutor(_PIECES_AT_ONCE, "store") as pool:
        coming: list[Future[bytes]] = []
        try:
            for number, start in enumerate(starts):
                while len(coming) < min(_PIECES_AT_ONCE, len(starts) - number):
                    ahead = start + len(coming) * _PIECE_BYTES
                    coming.append(pool.submit(read_range, address, ahead, min(_PIECE_BYTES, size - ahead)))
                piece = coming.pop(0).result()
                if len(piece) != min(_PIECE_BYTES, size - start):
                    raise StoreError(f"{address} ends after {start + len(piece):,} bytes; expected {size:,}")
                yield piece
        finally:
            for future in coming:
                future.cancel()


def list_files(folder: Address) -> dict[str, int]:
    """Names and sizes of the files right in a folder, but not of hidden ones. Nothing when there is no such folder."""
    if isinstance(folder, Path):
        try:
            with os.scandir(folder) as entries:
                return {e.name: e.stat().st_size for e in entries if e.is_file() and not e.name.startswith(".")}
        except (FileNotFoundError, NotADirectoryError):
            return {}
    names = {entry["name"].rpartition("/")[2]: entry for entry in _entries(folder) if entry["type"] == "file"}
    return {name: int(entry["size"] or 0) for name, entry in names.items() if name and not name.startswith(".")}


def list_folders(folder: Address) -> list[str]:
    """Names of the folders right in a folder, in order. Nothing when there is no such folder."""
    if isinstance(folder, Path):
        try:
            return sorted(path.name for path in folder.iterdir() if path.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
    names = (entry["name"].rstrip("/").rpartition("/")[2] for entry in _entries(folder) if entry["type"] == "directory")
    return sorted(name for name in names if name)


def find_files(folder: UPath) -> Iterator[Found]:
    """All files below a folder of a store, in no particular order."""
    listed = _asked(
        folder, "list", lambda fs, path, limit: (path.rstrip("/"), fs.find(path, detail=True)), unlimited=True
    )
    root, entries = listed
    for name, entry in entries.items():
        if name.startswith(root + "/"):
            yield Found(name[len(root) + 1 :], int(entry["size"] or 0), _changed_ns(entry))


def file_size(address: Address) -> int | None:
    """Bytes of a file; None when there is none."""
    try:
        if isinstance(address, Path):
            return address.stat().st_size
        info = _asked(address, "look at", lambda fs, path, limit: fs.info(path, **limit))
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
        _asked(address, "remove", lambda fs, path, limit: fs.rm_file(path))


def _entries(folder: UPath) -> list[dict[str, Any]]:
    try:
        found = _asked(folder, "list", lambda fs, path, limit: fs.ls(path, detail=True, **limit))
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


def _asked(
    address: UPath, verb: str, action: Callable[[Any, str, dict[str, Any]], _T], size: int = 0, unlimited: bool = False
) -> _T:
    """What the store answers, at the latest after some attempts. `size` bytes are sent: that takes a while."""
    begin_s = monotonic()

    def attempt() -> _T:
        fs = address.fs
        fs.invalidate_cache()
        timed = isinstance(fs, AsyncFileSystem) and not unlimited
        limit = {"timeout": silence_s() + size / _SLOWEST_BYTES_PER_S} if timed else {}
        return action(fs, address.path, limit)

    retrying = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.2, max=_LONGEST_PAUSE_S),
        retry=retry_if_not_exception_type(_FINAL) & _worth_another_try,
        reraise=True,
    )
    try:
        return retrying(attempt)
    except (FileNotFoundError, NotADirectoryError) as error:
        if verb != "write":
            raise
        raise StoreError(
            f"cannot write {address}: {_reason(error)}. Make the bucket first, or name another."
        ) from error
    except MemoryError:
        raise
    except PermissionError as error:
        raise StoreError(
            f"cannot {verb} {address}: access denied ({_reason(error)}). Check the credentials, and what they may do."
        ) from error
    except Exception as error:
        if _lacks_credentials(error):
            raise StoreError(
                f"cannot {verb} {address}: no credentials for {address.protocol}:// were found ({_reason(error)})"
            ) from error
        raise StoreError(
            f"cannot {verb} {address}: {_reason(error)}; asked {ATTEMPTS} times in {monotonic() - begin_s:.0f} s. "
            "Check the network and the store, then run the same command again."
        ) from error


def _lacks_credentials(error: BaseException | None) -> bool:
    return type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError")


def _worth_another_try(state: RetryCallState) -> bool:
    outcome = state.outcome
    return outcome is not None and not _lacks_credentials(outcome.exception())


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return f"no answer for {silence_s():g} s"
    text = " ".join(str(error).split())
    named = os.strerror(error.errno) if isinstance(error, OSError) and error.errno and not text else text
    return named[:300] or type(error).__name__


def _options(protocol: str) -> dict[str, Any]:
    """What a store's library is told beyond what the user has configured for fsspec."""
    if protocol in ("s3", "s3a") and "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        # Its own patience is an hour and more where a server says nothing.
        return {"config_kwargs": {"connect_timeout": 10, "read_timeout": silence_s(), "retries": {"max_attempts": 2}}}
    return {}


def _package(protocol: str, error: ImportError) -> str:
    known = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
    return f"pip install {known[protocol]}" if protocol in known else str(error)
