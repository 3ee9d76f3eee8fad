"""Addresses of photos, shards and runs: local paths, or addresses in an object store supported by fsspec.

An address is a `pathlib.Path` if it is local, otherwise a `UPath` (`s3://bucket/shards`, `gs://...`). Both join with
`/` and have `name`, `stem` and `parent`. `storage_of` returns the storage that reads and writes at an address; the
functions below are shortcuts. Credentials, endpoints and proxies are configured as for each store's own library.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from srshards.extras import install_command
from srshards.format import Address
from srshards.storage.base import Storage
from srshards.storage.local import LocalStorage
from srshards.storage.remote import FsspecStorage
from srshards.storage.retry import ATTEMPTS_OF_LIBRARY, store_timeout_s
from srshards.storage.retry import AddressError as AddressError
from srshards.storage.retry import StoreError as StoreError

_SMALL_FILES_AT_ONCE = 32
_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "hf": "huggingface_hub",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
}

_LOCAL, _STORES = LocalStorage(), FsspecStorage()


def parse_path(text: str) -> Path:
    """Parse a path, expanding `~`: shells do not in `--input=~/a`, and few do in `INPUT=~/a`.

    AddressError for an empty string, which pathlib reads as the working directory.
    """
    if not text:
        raise AddressError("the path is empty; expected a folder or a file, or . for the working directory")
    return Path(text).expanduser() if text == "~" or text.startswith("~/") else Path(text)


def parse_address(text: str) -> Address:
    """Parse `./photos`, `~/photos` or `file:///data/photos` as a path, `s3://bucket/photos` as a store address.

    AddressError when the store is unknown or its package is not installed.
    """
    protocol, separator, rest = text.partition("://")
    if not separator:
        return parse_path(text)
    if protocol in ("file", "local"):
        return Path(rest) if rest else parse_path(rest)
    import fsspec  # only when a store is used: see `request`
    from upath import UPath

    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise AddressError(f"{text}: {protocol}:// needs {_missing_package(protocol, error)}") from error
    except ValueError as error:
        raise AddressError(
            f"{text}: unknown store {protocol}://; expected a folder, or e.g. s3://bucket/folder, gs://bucket/folder"
        ) from error
    if not rest.strip("/") or (protocol in _PACKAGES and rest.startswith("/")):  # those have buckets
        expected = (
            "a repository, e.g. hf://datasets/USER/NAME"
            if protocol == "hf"
            else f"a bucket, e.g. {protocol}://bucket/folder"
        )
        raise AddressError(f"{text}: expected an address with {expected}")
    address: UPath = UPath(text.rstrip("/"), **_options(protocol))
    return address


def storage_of(address: Address) -> Storage[Any]:
    """Return the storage of an address. Only this function and `local_path` test the kind of an address."""
    return _LOCAL if isinstance(address, Path) else _STORES


def local_path(address: Address) -> Path:
    """Return the address as a local path. AddressError when it is in an object store."""
    if not isinstance(address, Path):
        raise AddressError(f"{address} is in an object store; expected a local path")
    return address


def read_bytes(address: Address, size: int = 0) -> bytes:
    """Return the content of a file. FileNotFoundError when it does not exist; StoreError when the store fails.

    The expected `size` in bytes extends the timeout for large files.
    """
    return storage_of(address).read_bytes(address, size)


def read_range(address: Address, offset: int, size: int) -> bytes:
    """Return `size` bytes of a file from `offset` on; fewer if the file is shorter."""
    return storage_of(address).read_range(address, offset, size)


def pieces(address: Address, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes of a large file, in order. StoreError when the file is shorter."""
    return storage_of(address).pieces(address, size)


def write_bytes(address: Address, content: bytes) -> None:
    """Write a small file atomically. StoreError when that fails in a store; OSError on a disk."""
    storage_of(address).write_bytes(address, content)


def list_files(folder: Address) -> dict[str, int]:
    """Return names and sizes of the non-hidden files directly in a folder; none if the folder does not exist."""
    return storage_of(folder).list_files(folder)


def list_folders(folder: Address) -> list[str]:
    """Return the sorted names of the folders directly in a folder; none if the folder does not exist."""
    return storage_of(folder).list_folders(folder)


def file_size(address: Address) -> int | None:
    """Return the size of a file in bytes; None if it does not exist."""
    return storage_of(address).file_size(address)


def is_folder(address: Address) -> bool:
    """Return whether the folder exists; in a store, whether any object is below the address."""
    return storage_of(address).is_folder(address)


def link_out_of(folder: Address, name: str) -> str | None:
    """Return an error message if a file is a link out of its folder or not a regular file; otherwise None."""
    return storage_of(folder).link_out_of(folder, name)


def remove(address: Address) -> None:
    """Remove a file if it exists."""
    storage_of(address).remove(address)


def remove_many(folder: Address, names: Sequence[str]) -> None:
    """Remove files from a folder, in no particular order."""
    storage, addresses = storage_of(folder), [folder / name for name in names]
    for _ in storage.map(storage.remove, addresses, _SMALL_FILES_AT_ONCE):
        pass


def _options(protocol: str) -> dict[str, Any]:
    """Return options for a store's library, in addition to the user's fsspec configuration."""
    if protocol not in ("s3", "s3a"):
        return {}
    import fsspec

    # Read an object in one request, without requesting its size first; large ones are read in pieces anyway.
    options: dict[str, Any] = {"max_concurrency": 1}
    if "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        # By default s3fs waits more than an hour for a server that does not answer.
        timeouts = {"connect_timeout": min(10.0, store_timeout_s()), "read_timeout": store_timeout_s()}
        options["config_kwargs"] = {**timeouts, "retries": {"total_max_attempts": ATTEMPTS_OF_LIBRARY}}
    return options


def _missing_package(protocol: str, error: ImportError) -> str:
    package = _PACKAGES.get(protocol)
    if package is None:
        return f"another package: {error}"
    return f"{package}, which is not installed; {install_command(package)}"
