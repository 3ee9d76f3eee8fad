"""The contract between generator and trainer: names, keys, JSON and manifest of a folder of shards.

Standard library only, so that a reader needs nothing else. `docs/formats.md` says the same in words.

    scale_4x/train-000003.tar    the samples: KEY.hr.npy, KEY.lr.npy, KEY.lr1.npy ..., KEY.up.npy, KEY.json
    scale_4x/train-000003.idx    where each member lies: `srshards.shards.tar_index`
    scale_4x/train-000003.json   the done marker, written last: a shard without it is not there
    scale_4x/manifest.json       the table of contents, written when every shard of the folder is whole
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from upath import UPath

FORMAT_VERSION = 2  # 1 had one LR per sample and always `up`; it still reads
MANIFEST_NAME = "manifest.json"
SPLITS = ("train", "val")
CODECS = ("npy", "png", "webp")
MIN_SCALE, MAX_SCALE = 2, 8
MAX_VARIANTS = 64
MAX_SIZE_PX = 8192  # of an HR image's edge

SHARD_FILE = re.compile(r"(?P<name>(?P<split>train|val)-(?P<number>[0-9]{6}))\.(?P<kind>tar|idx|json)")
SCALE_FOLDER = re.compile(r"scale_(?P<scale>[2-8])x")

MAX_SHARDS = 10**6
MAX_SAMPLES_PER_SHARD = 10**5
MAX_BYTES = 2**62  # of a file: offsets beyond are no numbers that a file could have
_SHA256 = re.compile(r"[0-9a-f]{64}")

# A file or folder of this machine, or of a store; and what gives a file's bytes. For stores: `srshards.storage.store`.
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
    if not re.fullmatch(r"[01][0-9]{11}", key):
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
        value = strict_json(read(path))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def strict_json(data: bytes) -> Any:
    """The value, unless a name stands twice in an object or a number is none. ValueError, or RecursionError."""
    return json.loads(data, object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(value := dict(pairs)) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return value


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:40]} is no number")
    return number


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
        raise FormatError(f"{where}: expected a shard record with {', '.join(_RECORD_TYPES)}, found {value!r}"[:400])
    record = ShardRecord(**{name: value[name] for name in _RECORD_TYPES})
    match = SHARD_FILE.fullmatch(record.name + ".tar")
    if not match or match["split"] != record.split:
        raise FormatError(f"{where}: {record.name[:80]!r} of split {record.split[:80]!r} is no shard name")
    if not (0 <= record.samples <= MAX_SAMPLES_PER_SHARD and 0 < record.bytes <= MAX_BYTES):
        raise FormatError(f"{where}: {record.name} cannot have {record.samples} samples in {record.bytes} bytes"[:300])
    if not _SHA256.fullmatch(record.sha256):
        raise FormatError(f"{where}: {record.sha256[:80]!r} of {record.name} is no sha256")
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
        raise FormatError(f"{path}: expected a format_version; is this a shardgen manifest?")
    if version > FORMAT_VERSION:
        raise FormatError(f"{path} has format version {version}, newer than {FORMAT_VERSION}: update this program")
    settings, shards = raw.get("settings"), raw.get("shards")
    if not isinstance(settings, dict) or not isinstance(shards, list):
        raise FormatError(f"{path}: expected 'settings' and 'shards'")
    scale, hr_size, codec = settings.get("scale"), settings.get("hr_size"), settings.get("codec")
    if type(scale) is not int or type(hr_size) is not int or not _can_be(scale, hr_size) or codec not in CODECS:
        raise FormatError(f"{path}: scale {scale!r}, hr_size {hr_size!r}, codec {codec!r} cannot be"[:300])
    since_2 = {"variants": 1, "up": True} if version == 1 else {}
    variants, has_up = ({**since_2, **settings}.get(name) for name in ("variants", "up"))
    if type(variants) is not int or not 1 <= variants <= MAX_VARIANTS or type(has_up) is not bool:
        raise FormatError(f"{path}: variants {variants!r}, up {has_up!r} cannot be"[:300])
    records = tuple(parse_record(shard, path) for shard in shards)
    names = [record.name for record in records]
    if len(set(names)) != len(names):
        raise FormatError(f"{path} lists a shard twice")
    if names != sorted(names):
        raise FormatError(f"{path} does not list its shards in order")
    return Manifest(folder, scale, hr_size, codec, records, raw, variants, has_up)


def _can_be(scale: int, hr_size: int) -> bool:
    return MIN_SCALE <= scale <= MAX_SCALE and 0 < hr_size <= MAX_SIZE_PX and hr_size % scale == 0
