"""Where the members of a shard's tar lie: by its index (the text index of NVIDIA DALI, v1.2) or by its own headers.

Standard library only, as `srshards.format`.
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
_NAME = re.compile(r"[!-~]+")  # an index has blanks between names, and is ASCII


class Member(NamedTuple):
    """One file in a tar: its extension (all after the name's first dot), where its bytes lie, and its name."""

    extension: str
    offset: int
    size: int
    name: str


def dump_index(samples: Iterable[Sequence[Member]]) -> bytes:
    """DALI's index text: `v1.2 COUNT`, then a line per sample of `extension offset size name` groups."""
    lines = [
        " ".join(f"{member.extension} {member.offset} {member.size} {member.name}" for member in sample)
        for sample in samples
    ]
    return "\n".join([f"{INDEX_VERSION} {len(lines)}", *lines, ""]).encode("ascii")


def load_index(path: Address, read: Read = Path.read_bytes) -> list[list[Member]]:
    """The samples of an index file. FormatError when a line is not what the header promises."""
    try:
        header, *lines = read(path).decode("ascii").splitlines()
        version, count = header.split()
        if version != INDEX_VERSION:
            raise FormatError(f"{path}: expected index {INDEX_VERSION}, found {version}")
        if _number(count) != len(lines):
            raise FormatError(f"{path}: the first line promises {count} samples, the file has {len(lines)}")
        return [_parse_sample(line) for line in lines]
    except ValueError as error:
        raise FormatError(f"{path} is no {INDEX_VERSION} index ({error})") from error


def _parse_sample(line: str) -> list[Member]:
    words = line.split()
    if not words or len(words) % 4:
        raise ValueError(f"a line of {len(words)} words; expected groups of 4")
    groups = [words[start : start + 4] for start in range(0, len(words), 4)]
    return [Member(extension, _number(offset), _number(size), name) for extension, offset, size, name in groups]


def _number(word: str) -> int:
    if not _NUMBER.fullmatch(word) or int(word) > MAX_BYTES:
        raise ValueError(f"expected a number of bytes, found {word[:40]!r}")
    return int(word)


def index_of_tar(file: IO[bytes], where: Address) -> list[list[Member]]:
    """The samples as the tar's own headers tell of them. FormatError when it is not a tar of plain files."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            infos = list(archive)
    except MemoryError:
        raise
    except Exception as error:  # tarfile raises all sorts of things on damaged data
        raise FormatError(f"{where} is no whole tar ({error})") from error
    if any(info.type != tarfile.REGTYPE for info in infos):
        raise FormatError(f"{where} holds something else than plain files")
    if strange := next((info.name for info in infos if not _NAME.fullmatch(info.name)), None):
        raise FormatError(f"{where}: {strange[:80]!r} is not the name of a member")
    members = [Member(info.name.partition(".")[2], info.offset_data, info.size, info.name) for info in infos]
    return [list(group) for _, group in groupby(members, key=lambda member: member.name.partition(".")[0])]


def check_samples(samples: Sequence[Sequence[Member]], where: Address, num_samples: int, num_bytes: int) -> None:
    """FormatError, which begins with `where`, unless these can be the samples of a tar of so many bytes.

    They are as many as they should be, their keys are those of one shard in order, of the one that `where` is called
    after, and no member leaves the file.
    """
    if len(samples) != num_samples:
        raise FormatError(f"{where}: expected {num_samples} samples as in the manifest, found {len(samples)}")
    if not samples:
        return
    shard = shard_of_key(samples[0][0].name.partition(".")[0])
    match = SHARD_FILE.fullmatch(where.name)
    if match and match["name"] != shard:
        raise FormatError(f"{where}: its samples belong to another shard, {shard}")
    split, number = shard.split("-")
    for ordinal, members in enumerate(samples):
        key = sample_key(split, int(number), ordinal)
        for member in members:
            if member.name != f"{key}.{member.extension}":
                raise FormatError(f"{where}: expected a member of sample {key}, found {member.name[:80]!r}")
            if member.offset + member.size > num_bytes:
                raise FormatError(f"{where}: {member.name} ends beyond the {num_bytes:,} bytes of its tar")
        if len({member.extension for member in members}) != len(members):
            raise FormatError(f"{where}: a member of sample {key} stands twice")
