"""Locate the members of a shard's tar, from its index (NVIDIA DALI's text index, v1.2) or from the tar's own headers.

Standard library only, like `srshards.format`.
"""

import re
import tarfile
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import IO, NamedTuple

from srshards.format import MAX_BYTES, SHARD_FILE, Address, FormatError, Read, sample_key, shard_of_key

INDEX_VERSION = "v1.2"
_NUMBER = re.compile(r"[0-9]{1,19}")
_NAME = re.compile(r"[!-~]+")  # an index is ASCII, with spaces between fields


class Member(NamedTuple):
    """One file in a tar: its extension (everything after the first dot), offset and size in bytes, and name."""

    extension: str
    offset: int
    size: int
    name: str


def dump_index(samples: Iterable[Sequence[Member]]) -> bytes:
    """Return DALI's index text: `v1.2 COUNT`, then a line per sample of `extension offset size name` groups."""
    lines = [
        " ".join(f"{member.extension} {member.offset} {member.size} {member.name}" for member in sample)
        for sample in samples
    ]
    return "\n".join([f"{INDEX_VERSION} {len(lines)}", *lines, ""]).encode("ascii")


def load_index(path: Address, read: Read = Path.read_bytes) -> list[list[Member]]:
    """Return the samples listed in an index file. FormatError when it is malformed."""
    try:
        header, *lines = read(path).decode("ascii").splitlines()
        version, count = header.split()
        if version != INDEX_VERSION:
            raise FormatError(f"{path}: expected index {INDEX_VERSION}, found {version}")
        if _number(count) != len(lines):
            raise FormatError(f"{path}: the header announces {count} samples, but the file has {len(lines)}")
        return [_parse_sample(line) for line in lines]
    except ValueError as error:
        raise FormatError(f"{path} is not a valid {INDEX_VERSION} index ({error})") from error


def _parse_sample(line: str) -> list[Member]:
    fields = line.split()
    if not fields or len(fields) % 4:
        raise ValueError(f"expected groups of 4 fields, found a line of {len(fields)} fields")
    groups = [fields[start : start + 4] for start in range(0, len(fields), 4)]
    return [Member(extension, _number(offset), _number(size), name) for extension, offset, size, name in groups]


def _number(field: str) -> int:
    if not _NUMBER.fullmatch(field) or int(field) > MAX_BYTES:
        raise ValueError(f"expected a number of bytes, found {field[:40]!r}")
    return int(field)


def index_of_tar(file: IO[bytes], where: Address) -> list[list[Member]]:
    """Return the samples listed in the tar's own headers. FormatError when it is not a tar of regular files."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            infos = list(archive)
    except MemoryError:
        raise
    except Exception as error:  # tarfile raises many kinds of exceptions on damaged data
        raise FormatError(f"{where} is not a complete tar ({error})") from error
    if any(info.type != tarfile.REGTYPE for info in infos):
        raise FormatError(f"{where} contains members that are not regular files")
    if invalid := next((info.name for info in infos if not _NAME.fullmatch(info.name)), None):
        raise FormatError(f"{where}: {invalid[:80]!r} is not a valid member name")
    members = [Member(info.name.partition(".")[2], info.offset_data, info.size, info.name) for info in infos]
    return [list(group) for _, group in groupby(members, key=lambda member: member.name.partition(".")[0])]


def check_samples(samples: Sequence[Sequence[Member]], where: Address, num_samples: int, num_bytes: int) -> None:
    """Raise FormatError unless the samples match the shard and lie within its tar of `num_bytes` bytes.

    Expected are `num_samples` samples with the consecutive keys of the shard called `where`, which is also the prefix
    of the message.
    """
    if len(samples) != num_samples:
        raise FormatError(f"{where}: expected {num_samples} samples as in the manifest, found {len(samples)}")
    if not samples:
        return
    shard = shard_of_key(samples[0][0].name.partition(".")[0])
    match = SHARD_FILE.fullmatch(where.name)
    if match and match["name"] != shard:
        raise FormatError(f"{where} contains the samples of shard {shard}")
    split, number = shard.split("-")
    for ordinal, members in enumerate(samples):
        key = sample_key(split, int(number), ordinal)
        for member in members:
            if member.name != f"{key}.{member.extension}":
                raise FormatError(f"{where}: expected a member of sample {key}, found {member.name[:80]!r}")
            if member.offset + member.size > num_bytes:
                raise FormatError(f"{where}: {member.name} ends beyond the {num_bytes:,} bytes of its tar")
        if len({member.extension for member in members}) != len(members):
            raise FormatError(f"{where}: duplicate member in sample {key}")
