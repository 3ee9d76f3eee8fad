"""Files that exist only when they are whole: written under a temporary name, flushed to the disk, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from srshards.errors import RunError

_TEMPORARY_SUFFIX = ".tmp"
_NAME_LETTERS = 40  # of the file's own name in its temporary one: a name ends at 255 bytes


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write to the path that this yields; at the end of the block it becomes `path`, whole, or nothing changes.

    Makes missing folders. RunError when the disk is full or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name[:_NAME_LETTERS]}.{os.getpid()}{_TEMPORARY_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_atomically(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed run left half-written. Only for whoever holds the run's lock."""
    for path in folder.glob(f".*{_TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)
