"""The contract between generator and trainer: names, members, index, marker and manifest of a folder of shards.

Standard library only, so that a reader needs nothing else. `docs/formats.md` says the same in words.

    scale_4x/train-000003.tar    the samples: KEY.hr.npy, KEY.lr.npy, KEY.lr1.npy ..., KEY.up.npy, KEY.json
    scale_4x/train-000003.idx    where each member lies (the text index of NVIDIA DALI, v1.2)
    scale_4x/train-000003.json   the done marker, written last: a shard without it is not there
    scale_4x/manifest.json       the table of contents, written when every shard of the folder is whole
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from upath import UPath

FORMAT_VERSION = 2  # 1 had one LR per sample and always `up`; it still reads
INDEX_VERSION = "v1.2"
MANIFEST_NAME = "manifest.json"
SPLITS = ("train", "val")
CODECS = ("npy", "png", "webp")
MIN_SCALE, MAX_SCALE = 2, 8
MAX_VARIANTS = 64

SHARD_FILE = re.compile(r"(?P<name>(?P<split>train|val)-(?P<number>\d{6}))\.(?P<kind>tar|idx|json)")
SCALE_FOLDER = re.compile(r"scale_(?P<scale>[2-8])x")

MAX_SHARDS = 10**6
MAX_SAMPLES_PER_SHARD = 10**5


# A file or folder of this machine, or of a store; and what gives a file's bytes. Those of a store: `shardgen.store`.
Address: TypeAlias = "Path | UPath"
Read: TypeAlias = Callable[[Any], bytes]


class FormatError(Exception):
    """A file of the contract does not say what it must. The message names the file."""


def scale_folder(scale: int) -> str:
    return f"scale_{scale}x"


def shard_name(split: str, number: int) -> str:
    return f"{split}-{number:06d}"


def sample_key(split: str, shard_number: int, ordinal: int) -> str:
    """Twelve digits: the split (0 train, 1 val), the shard's number (6) and the sample's place in it (5).

    Digits only, because WebDataset splits a member's name at the first dot of its basename. Unique in its folder, and
    independent of every other shard, so that a photo that is added or removed changes one shard and no other.
    """
    if not (0 <= shard_number < MAX_SHARDS and 0 <= ordinal < MAX_SAMPLES_PER_SHARD):
        raise ValueError(f"no key for sample {ordinal} of shard {shard_number}")
    return f"{SPLITS.index(split)}{shard_number:06d}{ordinal:05d}"


def shard_of_key(key: str) -> str:
    """The name of the shard that holds the sample, e.g. `train-000003` for `000000300042`."""
    if not re.fullmatch(r"[01]\d{11}", key):
        raise FormatError(f"{key!r} is no sample key: expected twelve digits, e.g. 000000300042")
    return shard_name(SPLITS[int(key[0])], int(key[1:7]))


def lr_name(variant: int) -> str:
    """The member of an LR image: `lr`, `lr1`, `lr2`, ..."""
    return f"lr{variant}" if variant else "lr"


def image_names(variants: int, has_up: bool) -> tuple[str, ...]:
    """The images of a sample, in the order in which they stand in the tar. `up` is the first LR enlarged."""
    return ("hr", *map(lr_name, range(variants)), *(("up",) if has_up else ()))


def dump_json(value: Any, indent: int | None = 2) -> bytes:
    """Readable UTF-8 JSON with a final newline; ASCII escapes only where a file name is not valid UTF-8."""
    try:
        return (json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode()


def load_json(path: Address, read: Read = Path.read_bytes) -> dict[str, Any]:
    """The JSON object in the file. FormatError when it is unreadable or no object; OSError when it is not there."""
    try:
        value = json.loads(read(path))
    except ValueError as error:
        raise FormatError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


# ---- index


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
        if int(count) != len(lines):
            raise FormatError(f"{path}: the first line promises {count} samples, the file has {len(lines)}")
        return [_parse_sample(line) for line in lines]
    except ValueError as error:
        raise FormatError(f"{path} is no {INDEX_VERSION} index ({error})") from error


def _parse_sample(line: str) -> list[Member]:
    words = line.split()
    if not words or len(words) % 4:
        raise ValueError(f"a line of {len(words)} words; expected groups of 4")
    groups = [words[start : start + 4] for start in range(0, len(words), 4)]
    members = [Member(extension, int(offset), int(size), name) for extension, offset, size, name in groups]
    if any(member.offset < 0 or member.size < 0 for member in members):
        raise ValueError("a negative offset or size")
    return members


# ---- marker and manifest


@dataclass(frozen=True)
class ShardRecord:
    """A shard as the manifest lists it. `bytes` is the size of the tar, `sha256` the hash of all of it."""

    name: str
    split: str
    samples: int
    bytes: int
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_RECORD_TYPES = {"name": str, "split": str, "samples": int, "bytes": int, "sha256": str}


def parse_record(value: Any, where: Address) -> ShardRecord:
    if not isinstance(value, dict) or any(type(value.get(k)) is not t for k, t in _RECORD_TYPES.items()):
        raise FormatError(f"{where}: expected a shard record with {', '.join(_RECORD_TYPES)}, found {value!r}")
    record = ShardRecord(**{name: value[name] for name in _RECORD_TYPES})
    match = SHARD_FILE.fullmatch(record.name + ".tar")
    if not match or match["split"] != record.split:
        raise FormatError(f"{where}: {record.name!r} of split {record.split!r} is no shard name")
    return record


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` holds. `raw` is the whole object; the fields are what every reader needs."""

    folder: Address
    scale: int
    hr_size: int
    codec: str
    shards: tuple[ShardRecord, ...]
    raw: dict[str, Any]
    variants: int = 1  # LR images of a training sample; validation samples have one
    has_up: bool = True

    def images(self, split: str) -> tuple[str, ...]:
        """The images of a sample of the split, in order."""
        return image_names(self.variants if split == "train" else 1, self.has_up)


def load_manifest(folder: Address, read: Read = Path.read_bytes) -> Manifest:
    """Read and check `folder/manifest.json`. FormatError says what is wrong with it, OSError that it is not there."""
    path = folder / MANIFEST_NAME
    raw = load_json(path, read)
    version = raw.get("format_version")
    if type(version) is not int or version < 1:
        raise FormatError(f"{path}: expected a format_version, found {version!r}; is this a shardgen manifest?")
    if version > FORMAT_VERSION:
        raise FormatError(f"{path} has format version {version}, newer than {FORMAT_VERSION}: update this program")
    settings, shards = raw.get("settings"), raw.get("shards")
    if not isinstance(settings, dict) or not isinstance(shards, list):
        raise FormatError(f"{path}: expected 'settings' and 'shards'")
    scale, hr_size, codec = settings.get("scale"), settings.get("hr_size"), settings.get("codec")
    if type(scale) is not int or type(hr_size) is not int or not _can_be(scale, hr_size) or codec not in CODECS:
        raise FormatError(f"{path}: scale {scale!r}, hr_size {hr_size!r}, codec {codec!r} cannot be")
    variants, has_up = settings.get("variants", 1), settings.get("up", True)  # version 1 has neither
    if type(variants) is not int or not 1 <= variants <= MAX_VARIANTS or type(has_up) is not bool:
        raise FormatError(f"{path}: variants {variants!r}, up {has_up!r} cannot be")
    records = tuple(parse_record(shard, path) for shard in shards)
    if len({record.name for record in records}) != len(records):
        raise FormatError(f"{path} lists a shard twice")
    return Manifest(folder, scale, hr_size, codec, records, raw, variants, has_up)


def _can_be(scale: int, hr_size: int) -> bool:
    return MIN_SCALE <= scale <= MAX_SCALE and hr_size > 0 and hr_size % scale == 0


def psnr_db(mean_squared_error: float) -> float:
    """10·log10(255² / MSE) in dB for 8-bit images; infinite for equal ones."""
    return math.inf if mean_squared_error == 0 else 10 * math.log10(255**2 / mean_squared_error)
