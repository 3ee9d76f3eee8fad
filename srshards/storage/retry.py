"""Send requests to an object store, with retries, backoff and a timeout."""

import errno
import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from upath import UPath

_T = TypeVar("_T")

ATTEMPTS = 6
ATTEMPTS_OF_LIBRARY = 3  # per page of a listing, where the store's own library can be configured
_LONGEST_PAUSE_S = 10.0
_SLOWEST_BYTES_PER_S = 250_000  # slower transfers time out
# Errors that a retry does not resolve.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError, MemoryError)

_starting = threading.Lock()


class StoreError(Exception):
    """A request to a store that failed despite retries. The message gives the address, the reason and what to do.

    Examples:
        >>> import srshards
        >>> try:
        ...     srshards.open("nfs://server/shards")
        ... except srshards.StoreError as error:
        ...     print(error)
        nfs://server/shards: unknown store nfs://; expected a folder, or e.g. s3://bucket/folder, gs://bucket/folder
    """

    exit_code = 1


class AddressError(StoreError):
    """An invalid address: an unknown kind of store, or one whose package is not installed."""

    exit_code = 2


def store_timeout_s() -> float:
    """Return the timeout of a request: SR_STORE_TIMEOUT in seconds, 30 by default."""
    text = os.environ.get("SR_STORE_TIMEOUT", "30")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 < seconds < 1e6:
        raise AddressError(f"SR_STORE_TIMEOUT={text}: expected a number of seconds above 0, e.g. 30")
    return seconds


def request(
    address: "UPath", verb: str, action: Callable[[Any, str, dict[str, Any]], _T], size: int = 0, pages: bool = False
) -> _T:
    """Return `action(file system, path, keyword arguments)`, retrying up to `ATTEMPTS` times.

    `verb` (read, write, list, ...) is for messages. The `size` of the transfer in bytes extends the timeout. A request
    with `pages` has no total timeout; the store's own library retries each page. FileNotFoundError when the object does
    not exist, except when writing.
    """
    # Imported here because runs without a store do not need them: 40 ms and 5 MB in each process.
    from fsspec.asyn import AsyncFileSystem
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    start_s, timeout_s = monotonic(), store_timeout_s()
    attempts = ATTEMPTS // ATTEMPTS_OF_LIBRARY if pages else ATTEMPTS

    def attempt() -> _T:
        fs = _ready(address)
        fs.invalidate_cache()
        timed = isinstance(fs, AsyncFileSystem) and not pages
        return action(fs, address.path, {"timeout": timeout_s + size / _SLOWEST_BYTES_PER_S} if timed else {})

    retrying = Retrying(
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=0.2, max=min(_LONGEST_PAUSE_S, timeout_s)),
        retry=retry_if_exception(_is_transient),
        reraise=True,
    )
    try:
        return retrying(attempt)
    except (FileNotFoundError, NotADirectoryError) as error:
        if verb != "write":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(address)) from error
        raise StoreError(
            f"cannot write {address}: {_reason(error)}; create the bucket first, or pass another address"
        ) from error
    except MemoryError:
        raise
    except PermissionError as error:
        raise StoreError(
            f"cannot {verb} {address}: access denied ({_reason(error)}); check the credentials and their permissions"
        ) from error
    except Exception as error:
        if _lacks_credentials(error):
            raise StoreError(
                f"cannot {verb} {address}: no credentials found for {address.protocol}:// ({_reason(error)}); "
                "set them in the environment or in the store's credentials file, then run the same command again"
            ) from error
        raise StoreError(
            f"cannot {verb} {address}: {_reason(error)} (tried {ATTEMPTS} times in {monotonic() - start_s:.0f} s); "
            "check the network and the store, then run the same command again"
        ) from error


def _ready(address: "UPath") -> Any:
    """Return the store's connected file system, with its own retries disabled.

    Called outside the timeout, because starting s3fs is slow.
    """
    with _starting:
        fs = address.fs
        if getattr(fs, "_pid", None) not in (None, os.getpid()):  # the parent's event loop does not run in a fork
            fs = type(fs)(*fs.storage_args, **fs.storage_options)
        if hasattr(fs, "connect") and getattr(fs, "retries", 1) > 1:  # gcsfs has no `connect`
            fs.connect()
            fs.retries = 1
    return fs


def _is_transient(error: BaseException) -> bool:
    """Return whether to retry. Interrupts (Ctrl-C, SIGTERM, Ray's cancellation) do not come from the store."""
    return isinstance(error, Exception) and not (isinstance(error, _FINAL) or _lacks_credentials(error))


def _lacks_credentials(error: BaseException | None) -> bool:
    return type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError")


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return f"no answer for {store_timeout_s():g} s"
    text = " ".join(str(error).split())
    named = os.strerror(error.errno) if isinstance(error, OSError) and error.errno and not text else text
    return named[:300] or type(error).__name__
