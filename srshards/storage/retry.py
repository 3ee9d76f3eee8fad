"""Asking a store for something: again when it stumbles, no longer than patience lasts, with an error that says what."""

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
ATTEMPTS_OF_LIBRARY = 3  # at each page of a listing, where a store's own library can be told so
_LONGEST_PAUSE_S = 10.0
_SLOWEST_BYTES_PER_S = 250_000  # below this a transfer counts as stuck
# Nothing gets better by trying again.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError, MemoryError)


_starting = threading.Lock()


class StoreError(Exception):
    """A store did not do what was asked, however often. The message names the address, the reason and what to do.

    >>> import srshards
    >>> try:
    ...     srshards.open("nfs://server/shards")
    ... except srshards.StoreError as error:
    ...     print(error)
    nfs://server/shards: there is no store nfs://; expected a folder, or e.g. s3://bucket/folder, gs://bucket/folder
    """

    exit_code = 1


class AddressError(StoreError):
    """An address that nothing can lie at: an unknown kind of store, or one whose package is not installed."""

    exit_code = 2


def store_timeout_s() -> float:
    """How long a store may say nothing before it is asked again: SR_STORE_TIMEOUT seconds, 30 by default."""
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
    """What the store answers to `action(file system, path, its keyword arguments)`, after some attempts at the latest.

    `size` bytes are on their way, which takes a while. An answer in `pages` may take any time in all; each page is
    asked for again by the store's own library. FileNotFoundError when nothing is there, unless it is written.
    """
    # Here, because a run that knows no store needs none of it: 40 ms and 5 MB in each of its processes.
    from fsspec.asyn import AsyncFileSystem
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    begin_s, patience_s = monotonic(), store_timeout_s()
    attempts = ATTEMPTS // ATTEMPTS_OF_LIBRARY if pages else ATTEMPTS

    def attempt() -> _T:
        fs = _ready(address)
        fs.invalidate_cache()
        timed = isinstance(fs, AsyncFileSystem) and not pages
        return action(fs, address.path, {"timeout": patience_s + size / _SLOWEST_BYTES_PER_S} if timed else {})

    retrying = Retrying(
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=0.2, max=min(_LONGEST_PAUSE_S, patience_s)),
        retry=retry_if_exception(_may_pass),
        reraise=True,
    )
    try:
        return retrying(attempt)
    except (FileNotFoundError, NotADirectoryError) as error:
        if verb != "write":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(address)) from error
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


def _ready(address: "UPath") -> Any:
    """The store's file system. s3fs takes a while to start, which is not the store's silence, and tries five times."""
    with _starting:
        fs = address.fs
        if getattr(fs, "_pid", None) not in (None, os.getpid()):  # a fork has no event loop of its parent's
            fs = type(fs)(*fs.storage_args, **fs.storage_options)
        if hasattr(fs, "connect") and getattr(fs, "retries", 1) > 1:  # gcsfs has retries alone
            fs.connect()
            fs.retries = 1
    return fs


def _may_pass(error: BaseException) -> bool:
    """Whether to try again. An interrupt (Ctrl-C, SIGTERM, Ray's cancel) is no word of the store's."""
    return isinstance(error, Exception) and not (isinstance(error, _FINAL) or _lacks_credentials(error))


def _lacks_credentials(error: BaseException | None) -> bool:
    return type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError")


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return f"no answer for {store_timeout_s():g} s"
    text = " ".join(str(error).split())
    named = os.strerror(error.errno) if isinstance(error, OSError) and error.errno and not text else text
    return named[:300] or type(error).__name__
