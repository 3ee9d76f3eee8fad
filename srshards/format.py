"""The file format shared by generator and trainer: names, keys, JSON and manifest of a folder of shards.

Standard library only, so that a reader needs nothing else. `docs/reference/formats.md` is the specification.

    scale_4x/train-000003.tar    the samples: KEY.hr.npy, KEY.lr.npy, KEY.lr1.npy ..., KEY.up.npy, KEY.json
    scale_4x/train-000003.idx    the offsets of the members: `srshards.shards.tar_index`
    scale_4x/train-000003.json   the marker, written last: a shard without it is ignored
    scale_4x/manifest.json       the table of contents, written when every shard of the folder is complete
"""

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from upath import UPath

FORMAT_VERSION = 3  # all earlier versions are read: docs/reference/formats.md, "Version history"
MANIFEST_NAME = "manifest.json"
SPLITS = ("train", "val")
CODECS = ("npy", "png", "webp", "tlc")
CROP_CODECS = ("npy", "tlc")  # of which crops are read without the rest of the image
MIN_SCALE, MAX_SCALE = 2, 8
MAX_VARIANTS = 64
MAX_SIZE_PX = 8192  # edge length of HR images
EQUAL_PSNR_DB = 200.0  # for equal images in a sample's `json`; finite values are below 140

SHARD_FILE = re.compile(r"(?P<name>(?P<split>train|val)-(?P<number>[0-9]{6}))\.(?P<kind>tar|idx|json)")
SCALE_FOLDER = re.compile(r"scale_(?P<scale>[2-8])x")

MAX_SHARDS = 10**6
MAX_SAMPLES_PER_SHARD = 10**5
MAX_BYTES = 2**62  # of a file; larger sizes and offsets are invalid
_SHA256 = re.compile(r"[0-9a-f]{64}")

# The address of a file or folder, local or in a store, and a function that reads a file (see `srshards.storage.store`).
Address: TypeAlias = "Path | UPath"
Read: TypeAlias = Callable[[Any], bytes]


class FormatError(Exception):
    """A file that violates the format. The message starts with the file name."""


def scale_folder(scale: int) -> str:
    return f"scale_{scale}x"


def shard_name(split: str, number: int) -> str:
    return f"{split}-{number:06d}"


def split_of(name: str) -> str:
    """Return the split of a shard, `train` or `val`, from its name."""
    return name.partition("-")[0]


def sample_key(split: str, shard_number: int, ordinal: int) -> str:
    """Return the key: twelve digits for the split (1: 0 train, 1 val), shard number (6) and position in the shard (5).

    Digits only, because WebDataset splits a member's name at the first dot of its base name. Keys are unique in a
    folder and independent of other shards, so that adding or removing a photo changes only one shard.
    """
    if not (0 <= shard_number < MAX_SHARDS and 0 <= ordinal < MAX_SAMPLES_PER_SHARD):
        raise ValueError(f"sample {ordinal} of shard {shard_number} is out of range")
    return f"{SPLITS.index(split)}{shard_number:06d}{ordinal:05d}"


def shard_of_key(key: str) -> str:
    """Return the name of the shard that holds a sample, e.g. `train-000003` for `000000300042`."""
    if not re.fullmatch(r"[01][0-9]{11}", key):
        raise FormatError(f"{key!r} is not a sample key: expected twelve digits, e.g. 000000300042")
    return shard_name(SPLITS[int(key[0])], int(key[1:7]))


def lr_name(variant: int) -> str:
    """Return the member name of an LR variant: `lr`, `lr1`, `lr2`, ..."""
    return f"lr{variant}" if variant else "lr"


def image_names(variants: int, has_up: bool) -> tuple[str, ...]:
    """Return the image names of a sample, in tar order. `up` is the first LR image, upsampled."""
    return ("hr", *map(lr_name, range(variants)), *(("up",) if has_up else ()))


def image_codec(name: str, codec: str) -> str:
    """Return the codec of an image in shards of a codec: with `tlc`, the small LR images are `npy`."""
    return "npy" if codec == "tlc" and name.startswith("lr") else codec


def image_extension(name: str, codec: str) -> str:
    """Return the extension of an image's member in shards of a codec, e.g. `hr.png`."""
    return f"{name}.{image_codec(name, codec)}"


def dump_json(value: Any, indent: int | None = 2) -> bytes:
    """Return indented UTF-8 JSON with a final newline; escaped to ASCII only if a file name is not valid UTF-8."""
    try:
        return (json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode()


def load_json(path: Address, read: Read = Path.read_bytes) -> dict[str, Any]:
    """Read a JSON object from a file. FormatError when it is invalid or not an object; OSError when it is missing."""
    try:
        value = strict_json(read(path))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def strict_json(data: bytes | str) -> Any:
    """Parse JSON. ValueError for invalid JSON, duplicate names, NaN or infinity; RecursionError for deep nesting."""
    return json.loads(data, object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(value := dict(pairs)) != len(pairs):
        raise ValueError("duplicate name in an object")
    return value


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:40]} is not a finite number")
    return number


@dataclass(frozen=True)
class ShardRecord:
    """A shard as listed in the manifest. `bytes` and `sha256` are size and hash of the tar."""

    name: str
    split: str
    samples: int
    bytes: int
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_RECORD_TYPES = {"name": str, "split": str, "samples": int, "bytes": int, "sha256": str}


def parse_record(value: Any, where: Address) -> ShardRecord:
    """Return the shard record in a parsed JSON value. FormatError, starting with `where`, when it is invalid."""
    if not isinstance(value, dict) or any(type(value.get(k)) is not t for k, t in _RECORD_TYPES.items()):
        raise FormatError(f"{where}: expected a shard record with {', '.join(_RECORD_TYPES)}, found {value!r}"[:400])
    record = ShardRecord(**{name: value[name] for name in _RECORD_TYPES})
    match = SHARD_FILE.fullmatch(record.name + ".tar")
    if not match or match["split"] != record.split:
        raise FormatError(f"{where}: {record.name[:80]!r} is not a valid shard name of split {record.split[:80]!r}")
    if not (0 <= record.samples <= MAX_SAMPLES_PER_SHARD and 0 < record.bytes <= MAX_BYTES):
        raise FormatError(f"{where}: {record.name} cannot have {record.samples} samples in {record.bytes} bytes"[:300])
    if not _SHA256.fullmatch(record.sha256):
        raise FormatError(f"{where}: {record.sha256[:80]!r} of {record.name} is not a SHA-256")
    return record


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`: `raw` is the complete JSON object; the other fields are parsed from it."""

    folder: Address
    scale: int
    hr_size: int
    codec: str
    shards: tuple[ShardRecord, ...]
    raw: dict[str, Any]
    variants: int = 1  # LR images per training sample; validation samples have one
    has_up: bool = True

    @property
    def sha256(self) -> str:
        """The SHA-256 of the file, which identifies the shards down to the last byte: it lists the hash of each."""
        return hashlib.sha256(dump_json(self.raw)).hexdigest()

    def members(self, split: str) -> list[str]:
        """Return the extensions of the members of a sample of the split, in tar order."""
        return [*(image_extension(name, self.codec) for name in self.images(split)), "json"]

    def images(self, split: str) -> tuple[str, ...]:
        """Return the image names of a sample of the split, in tar order."""
        return image_names(self.variants if split == "train" else 1, self.has_up)


def load_manifest(folder: Address, read: Read = Path.read_bytes) -> Manifest:
    """Read and validate `folder/manifest.json`. FormatError when it is invalid, OSError when it cannot be read."""
    path = folder / MANIFEST_NAME
    raw = load_json(path, read)
    version = raw.get("format_version")
    if type(version) is not int or version < 1:
        raise FormatError(f"{path} is not a manifest of shards: expected a format_version of 1 or more")
    if version > FORMAT_VERSION:
        raise FormatError(f"{path} has format version {version}, newer than {FORMAT_VERSION}; update sr-shards")
    settings, shards = raw.get("settings"), raw.get("shards")
    if not isinstance(settings, dict) or not isinstance(shards, list):
        raise FormatError(f"{path}: expected 'settings' and 'shards'")
    scale, hr_size, codec = settings.get("scale"), settings.get("hr_size"), settings.get("codec")
    if type(scale) is not int or type(hr_size) is not int or not _are_valid(scale, hr_size):
        raise FormatError(f"{path}: invalid scale {scale!r} or hr_size {hr_size!r}"[:300])
    if codec not in CODECS:
        raise FormatError(f"{path}: expected codec {', '.join(CODECS)}, found {codec!r}; update sr-shards"[:300])
    version_1_defaults = {"variants": 1, "up": True} if version == 1 else {}
    variants, has_up = ({**version_1_defaults, **settings}.get(name) for name in ("variants", "up"))
    if type(variants) is not int or not 1 <= variants <= MAX_VARIANTS or type(has_up) is not bool:
        raise FormatError(f"{path}: invalid variants {variants!r} or up {has_up!r}"[:300])
    records = tuple(parse_record(shard, path) for shard in shards)
    names = [record.name for record in records]
    if len(set(names)) != len(names):
        raise FormatError(f"{path} lists a shard twice")
    if names != sorted(names):
        raise FormatError(f"{path} does not list its shards in order")
    return Manifest(folder, scale, hr_size, codec, records, raw, variants, has_up)


def _are_valid(scale: int, hr_size: int) -> bool:
    return MIN_SCALE <= scale <= MAX_SCALE and 0 < hr_size <= MAX_SIZE_PX and hr_size % scale == 0
