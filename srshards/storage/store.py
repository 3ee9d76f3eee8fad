"""Where photos, shards and runs lie: a folder of this machine, or an address in a store that fsspec knows.

An address is a `pathlib.Path` for what is local, and a `UPath` (`s3://bucket/shards`, `gs://...`) for what is not. Both
join with `/` and have `name`, `stem` and `parent`; `storage_of` gives what reads and writes there, and the functions
below are short for it. Credentials, endpoints and proxies are taken from wherever each store's own library takes them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from srshards.format import Address
from srshards.storage.base import Storage
from srshards.storage.local import LocalStorage
from srshards.storage.remote import FsspecStorage
from srshards.storage.retry import ATTEMPTS_OF_LIBRARY, AddressError, StoreError, store_timeout_s

__all__ = (
    "AddressError",
    "StoreError",
    "file_size",
    "is_folder",
    "link_out_of",
    "list_files",
    "list_folders",
    "local_path",
    "parse_address",
    "parse_path",
    "pieces",
    "read_bytes",
    "read_range",
    "remove",
    "remove_many",
    "storage_of",
    "store_timeout_s",
    "write_bytes",
)

_SMALL_FILES_AT_ONCE = 32
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}

_LOCAL, _STORES = LocalStorage(), FsspecStorage()


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
    import fsspec  # not before something lies in a store: see `request`
    from upath import UPath

    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise AddressError(f"{text}: {protocol}:// needs another package: {_package(protocol, error)}") from error
    except ValueError as error:
        raise AddressError(
            f"{text}: there is no store {protocol}://; expected a folder, or e.g. s3://bucket/folder, gs://bucket/folder"
        ) from error
    if not rest.strip("/") or (protocol in _PACKAGES and rest.startswith("/")):  # those have buckets
        raise AddressError(f"{text} names no place in the store; expected e.g. {protocol}://bucket/folder")
    address: UPath = UPath(text.rstrip("/"), **_options(protocol))
    return address


def storage_of(address: Address) -> Storage[Any]:
    """What reads and writes at the address. Here, and in `local_path`, it is decided what kind of address that is."""
    return _LOCAL if isinstance(address, Path) else _STORES


def local_path(address: Address) -> Path:
    """The address, for what needs a file of this machine: to map it, or because nobody would look for it in a store.

    AddressError when it lies in a store.
    """
    if not isinstance(address, Path):
        raise AddressError(f"{address} is in an object store; expected a local path")
    return address


def read_bytes(address: Address, size: int = 0) -> bytes:
    """All of a file. FileNotFoundError when it is not there; StoreError when the store does not give it.

    With `size`, what it is expected to have in bytes, a large file may take its time.
    """
    return storage_of(address).read_bytes(address, size)


def read_range(address: Address, offset: int, size: int) -> bytes:
    """`size` bytes of a file from `offset` on; fewer where it ends before."""
    return storage_of(address).read_range(address, offset, size)


def pieces(address: Address, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a large file, in order. StoreError when the file ends before."""
    return storage_of(address).pieces(address, size)


def write_bytes(address: Address, content: bytes) -> None:
    """Put a small file in its place: it is there whole or not at all.

    In a store that is one request, or StoreError; OSError here.
    """
    storage_of(address).write_bytes(address, content)


def list_files(folder: Address) -> dict[str, int]:
    """Names and sizes of the files right in a folder, but not of hidden ones. Nothing when there is no such folder."""
    return storage_of(folder).list_files(folder)


def list_folders(folder: Address) -> list[str]:
    """Names of the folders right in a folder, in order. Nothing when there is no such folder."""
    return storage_of(folder).list_folders(folder)


def file_size(address: Address) -> int | None:
    """Bytes of a file; None when there is none."""
    return storage_of(address).file_size(address)


def is_folder(address: Address) -> bool:
    """Whether anything lies there; in a store, a folder is what some file's address begins with."""
    return storage_of(address).is_folder(address)


def link_out_of(folder: Address, name: str) -> str | None:
    """What is wrong with a file of a folder that is a link out of it, or not a plain file; None when it is not."""
    return storage_of(folder).link_out_of(folder, name)


def remove(address: Address) -> None:
    """Remove a file, if it is there."""
    storage_of(address).remove(address)


def remove_many(folder: Address, names: Sequence[str]) -> None:
    """Remove small files of a folder. Each that is asked for is gone afterwards, in no particular order."""
    storage, addresses = storage_of(folder), [folder / name for name in names]
    for _ in storage.map(storage.remove, addresses, _SMALL_FILES_AT_ONCE):
        pass


def _options(protocol: str) -> dict[str, Any]:
    """What a store's library is told beyond what the user has configured for fsspec."""
    if protocol not in ("s3", "s3a"):
        return {}
    import fsspec

    # Small objects come in one request, not after one that asks for the size; large ones are asked for in pieces.
    options: dict[str, Any] = {"max_concurrency": 1}
    if "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        # Its own patience is an hour and more where a server says nothing.
        patience = {"connect_timeout": min(10.0, store_timeout_s()), "read_timeout": store_timeout_s()}
        options["config_kwargs"] = {**patience, "retries": {"total_max_attempts": ATTEMPTS_OF_LIBRARY}}
    return options


def _package(protocol: str, error: ImportError) -> str:
    return f"pip install {_PACKAGES[protocol]}" if protocol in _PACKAGES else str(error)
