"""One run at a time for an output folder, for as long as its process lives."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from shardgen.errors import RunError, UsageError
from shardgen.files import remove_temporaries
from shardgen.format import Address
from shardgen.scratch import scratch_root
from shardgen.store import remove, write_bytes

_LOCK_NAME = ".shardgen.lock"
_PROBE_NAME = ".shardgen.probe"


@contextmanager
def locked(output: Address) -> Iterator[None]:
    """Hold the output folder for this process alone, for as long as it lives. Clears away what a killed run left.

    Stores know no locks that die with their owner, so one of this machine stands for an output in a store: it keeps
    other runs of this user here away, and none elsewhere. Whether the store can be written to is tried at once.
    """
    lock = filelock.FileLock(output / _LOCK_NAME if isinstance(output, Path) else _stand_in(str(output)), timeout=0)
    try:
        if isinstance(output, Path):
            output.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise UsageError(
            f"another shardgen run is writing to {output}. Wait until it has ended, or name another --output."
        ) from None
    except OSError as error:
        raise UsageError(f"cannot write to {output}: {error.strerror}. Name another --output.") from error
    try:
        if isinstance(output, Path):
            for folder in (output, *output.glob("scale_*x")):
                remove_temporaries(folder)
        else:
            write_bytes(output / _PROBE_NAME, b"")
            remove(output / _PROBE_NAME)
        yield
    except OSError as error:
        place = output if isinstance(output, Path) else scratch_root()
        raise RunError(f"cannot write to {place}: {error}. Finished shards are kept.") from error
    finally:
        lock.release()


def _stand_in(address: str) -> Path:
    return scratch_root() / f"{hashlib.sha256(address.rstrip('/').encode()).hexdigest()[:16]}.lock"
