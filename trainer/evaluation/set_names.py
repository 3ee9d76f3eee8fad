"""Named sets of validation images as options give them. Does not import PyTorch, which is too slow for help."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from srshards.errors import UsageError
from srshards.format import Address
from srshards.storage.store import AddressError, parse_address

MAIN_SET = "val"  # the validation split of the shards that a run trains on
_MAX_NAME_CHARS = 64
# A name is part of a TensorBoard tag (PyTorch replaces other characters) and follows the @ of --best METRIC@SET.
_NAME = re.compile(r"[\w-][\w.-]*")


class NamedSet(NamedTuple):
    """A folder of HR photos, or a shard folder of one scale, under the name by which its results are reported."""

    name: str
    address: Address

    def __str__(self) -> str:
        return f"{self.name}={self.address}"


def parse_set(text: str) -> NamedSet:
    """Parse `NAME=FOLDER_OR_SHARDS`, or only the address, which is then named after its folder.

    A text with a `/` before its first `=` has no name: `./a=b` is the folder `a=b`. UsageError for an empty address, an
    unknown store, or a name with characters other than letters, digits, `.`, `_` and `-`.
    """
    name, separator, rest = text.partition("=")
    is_named = bool(separator) and "/" not in name
    location = rest if is_named else text
    try:
        address = parse_address(location)
    except AddressError as error:
        raise UsageError(f"{text!r}: {error}") from error
    if not is_named:
        name = Path(os.path.abspath(address)).name if isinstance(address, Path) else address.name
    if len(name) > _MAX_NAME_CHARS or not _NAME.fullmatch(name):
        whose = "the name" if is_named else "the folder's name"
        raise UsageError(
            f"{whose} {name!r} cannot name a set: expected up to {_MAX_NAME_CHARS} letters, digits, '.', '_' or '-'; "
            f"pass e.g. {_suggested(name)}={location}"
        )
    return NamedSet(name, address)


def check_names(sets: Iterable[NamedSet], option: str) -> None:
    """Raise UsageError if two sets have the same name, or one has that of the validation split."""
    seen: dict[str, NamedSet] = {}
    for one in sets:
        if one.name == MAIN_SET:
            raise UsageError(
                f"{option} {one}: {MAIN_SET!r} is the name of the validation split of the shards; pass another name, "
                f"e.g. {option} other={one.address}"
            )
        if one.name in seen:
            raise UsageError(
                f"two sets have the name {one.name!r}: {seen[one.name].address} and {one.address}; name them, "
                f"e.g. {option} {one.name}-2={one.address}"
            )
        seen[one.name] = one


def _suggested(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).lstrip(".")[:_MAX_NAME_CHARS].strip("_") or "set"
