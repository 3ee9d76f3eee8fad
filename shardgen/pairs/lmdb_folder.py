"""LMDB folders of PNG files in BasicSR's layout: data.mdb, and meta_info.txt with the name and shape of every image.

The key of `mountain/0001.png` is `mountain/0001`. A folder is opened read-only and without LMDB's lock, as BasicSR
does, so that it can be on a read-only disk and be shared by any number of processes, also after a fork.
"""

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from shardgen.pairs.meta_info import read_meta_info
from shardgen.planning.sources import Photo, Source, shown
from srshards.errors import PhotoError, UsageError
from srshards.format import Address
from srshards.process.shortages import shortage
from srshards.storage.store import local_path, storage_of

if TYPE_CHECKING:
    import lmdb

_META_INFO = "meta_info.txt"
_opened: dict[str, tuple[tuple[int, int], "lmdb.Environment"]] = {}  # by path, with the file's identity
_LAYOUT = "expected an LMDB as BasicSR's create_lmdb.py writes it, with data.mdb and meta_info.txt"


def is_lmdb(root: Address) -> bool:
    """Return whether the address is that of an LMDB, by its name."""
    return root.name.endswith(".lmdb")


def list_images(root: Address) -> list[Photo]:
    """Return the images of an LMDB, with the size of each. Their modification time is that of the LMDB.

    UsageError when it is not an LMDB in BasicSR's layout, is being written, or is incomplete.
    """
    folder = _local(root)
    _check_layout(folder)
    names = [line.path for line in read_meta_info(folder / _META_INFO).lines]
    modified_ns = (folder / "data.mdb").stat().st_mtime_ns
    import lmdb

    photos, missing = [], []
    try:
        with _environment(folder).begin(buffers=True) as transaction:
            for name in names:
                value = transaction.get(_key(name))  # does not touch the value's pages
                if value is None:
                    missing.append(name)
                else:
                    photos.append(Photo(name, len(value), modified_ns))
    except lmdb.Error as error:
        raise _damaged(folder, error) from error
    if missing:
        examples = ", ".join(shown(name) for name in missing[:3])
        raise UsageError(
            f"{folder / _META_INFO} lists {len(missing):,} of {len(names):,} images that are not in data.mdb, e.g. "
            f"{examples}; create the LMDB again"
        )
    return photos


def read_image(root: Address, photo: Source) -> bytes:
    """Return the PNG file of an image. PhotoError when it cannot be read; UsageError as `list_images`."""
    import lmdb

    try:
        with _environment(_local(root)).begin() as transaction:
            value = transaction.get(_key(photo.path))
    except lmdb.Error as error:
        raise PhotoError(f"cannot be read from the LMDB: {_reason(error)}") from error
    if not value:
        raise PhotoError("not in the LMDB" if value is None else "empty file")
    return bytes(value)


def _key(name: str) -> bytes:
    return os.fsencode(name.rpartition(".")[0] or name)


def _local(root: Address) -> Path:
    if not storage_of(root).is_local:
        raise UsageError(f"{root}: an LMDB is read from a local disk only; copy it there first")
    return local_path(root)


def _check_layout(folder: Path) -> None:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UsageError(f"{folder} {what}; {_LAYOUT}")
    missing = [name for name in ("data.mdb", _META_INFO) if not (folder / name).is_file()]
    if missing:
        raise UsageError(f"{folder} has no {' and no '.join(missing)}; {_LAYOUT}")


def _environment(folder: Path) -> "lmdb.Environment":
    """Return the LMDB opened once per process, as LMDB requires. A forked process uses that of its parent."""
    path, status = os.path.realpath(folder), (folder / "data.mdb").stat()
    identity = (status.st_ino, status.st_mtime_ns)
    if path in _opened and _opened[path][0] != identity:
        _opened.pop(path)[1].close()
    if path not in _opened:
        _opened[path] = identity, _open(Path(path))
    return _opened[path][1]


def _open(folder: Path) -> "lmdb.Environment":
    import lmdb

    _refuse_writer(folder)
    try:
        environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, create=False)
    except lmdb.Error as error:
        raise _damaged(folder, error) from error
    expected = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    found = (folder / "data.mdb").stat().st_size
    if found < expected:  # reading the missing pages would kill the process
        environment.close()
        raise UsageError(
            f"{folder / 'data.mdb'} is truncated: expected {expected:,} bytes, found {found:,}; copy or create the "
            "LMDB again"
        )
    return environment


def _refuse_writer(folder: Path) -> None:
    """Raise UsageError while a process has the LMDB open for writing: it holds a lock on the first byte of lock.mdb."""
    try:
        with open(folder / "lock.mdb", "rb+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
            except BlockingIOError as error:
                raise UsageError(
                    f"{folder} is open in another process, which may be writing to it; wait until that has ended"
                ) from error
    except OSError as error:
        if shortage(error):
            raise  # no lock file, or a read-only disk: nobody writes


def _damaged(folder: Path, error: "lmdb.Error") -> UsageError:
    return UsageError(f"{folder / 'data.mdb'} is damaged ({_reason(error)}); copy or create the LMDB again")


def _reason(error: "lmdb.Error") -> str:
    return str(error).rpartition(": ")[2]
