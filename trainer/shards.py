"""A folder of shards as the trainer finds it: everything that can be known before the first batch is checked here."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shardgen.format import (
    MANIFEST_NAME,
    FormatError,
    Manifest,
    ShardRecord,
    check_samples,
    index_of_tar,
    link_out_of,
    load_index,
    load_manifest,
    lr_name,
)
from trainer.errors import UsageError
from trainer.stream.mapped_shard import mend

_CHUNK_BYTES = 1 << 20
_MAKE_THEM = "make shards first: shardgen generate -i PHOTOS -o shards -s 4"


@dataclass(frozen=True)
class ShardFolder:
    """A scale's folder. `train` and `val` are the shards with samples, in the manifest's order."""

    path: Path
    manifest: Manifest
    train: tuple[ShardRecord, ...]
    val: tuple[ShardRecord, ...]

    @property
    def scale(self) -> int:
        return self.manifest.scale

    @property
    def hr_size(self) -> int:
        """Edge of the HR images in px."""
        return self.manifest.hr_size

    @property
    def codec(self) -> str:
        return self.manifest.codec

    def tar(self, record: ShardRecord) -> Path:
        return self.path / f"{record.name}.tar"

    def inputs(self, name: str) -> tuple[str, ...]:
        """What a training sample has to show to a network: each variant of `lr`, or its one `up`."""
        return tuple(map(lr_name, range(self.manifest.variants))) if name == "lr" else (name,)

    def num_samples(self, split: str) -> int:
        return sum(record.samples for record in (self.train if split == "train" else self.val))

    def fingerprint(self) -> str:
        """Changes when any sample of the folder does: a run can only be resumed on the same data."""
        text = "\n".join(f"{record.name} {record.samples} {record.sha256}" for record in (*self.train, *self.val))
        return hashlib.sha256(text.encode()).hexdigest()


def open_shards(
    folder: Path, verify: bool = False, progress: Callable[[int], object] = lambda num_bytes: None
) -> ShardFolder:
    """The shards of one scale, all there and of the sizes that the manifest says.

    With `verify`, also of its sha256, and what their indices say is what the tars hold. `progress` is told the bytes
    that were hashed. UsageError names the first thing that is wrong and the way out.
    """
    manifest = _manifest(folder)
    shards = [record for record in manifest.shards if record.samples]
    for record in shards:
        _check_size(folder, record)
    if verify:
        for record in shards:
            _check_hash(folder, record, progress)
            _check_index(folder, manifest, record)
    of = {split: tuple(record for record in shards if record.split == split) for split in ("train", "val")}
    return ShardFolder(folder, manifest, of["train"], of["val"])


def _manifest(folder: Path) -> Manifest:
    try:
        is_folder, exists = folder.is_dir(), folder.exists()
    except (OSError, ValueError) as error:  # no name that a folder could have
        raise UsageError(f"--shards {folder}: {getattr(error, 'strerror', error)}") from error
    if not is_folder:
        what = "is a file" if exists else "does not exist"
        raise UsageError(f"--shards {folder}: expected a folder of shards, but it {what}; {_MAKE_THEM}")
    if not (folder / MANIFEST_NAME).is_file():
        raise UsageError(f"--shards {folder}: {_what_it_is(folder)}")
    _refuse_link(folder, MANIFEST_NAME)
    try:
        return load_manifest(folder)
    except (FormatError, OSError) as error:
        raise UsageError(str(error)) from error


def _what_it_is(folder: Path) -> str:
    """What a folder without a manifest seems to be, and what to do about it."""
    scales = sorted(path.parent for path in folder.glob(f"*/{MANIFEST_NAME}"))
    if scales:
        return f"that is the folder above the scales; name one of them: --shards {' or '.join(map(str, scales))}"
    if any(folder.glob("*.tar")):
        return (
            f"there are tars but no {MANIFEST_NAME}, so generating was not finished; "
            "run the same shardgen generate command again, it goes on where it was"
        )
    images = sum(1 for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    if images:
        return f"there are {images:,} loose images but no shards; {_MAKE_THEM.replace('PHOTOS', str(folder))}"
    return f"there is no {MANIFEST_NAME} in it; {_MAKE_THEM}"


def _check_size(folder: Path, record: ShardRecord) -> None:
    for path in (folder / f"{record.name}.tar", folder / f"{record.name}.idx"):
        if not path.is_file():
            raise UsageError(f"{path} is missing, but the manifest lists it; {mend(folder)}")
        _refuse_link(folder, path.name)
    path = folder / f"{record.name}.tar"
    size = path.stat().st_size
    if size != record.bytes:
        raise UsageError(f"{path}: expected {record.bytes:,} bytes as in the manifest, found {size:,}; {mend(folder)}")


def _check_hash(folder: Path, record: ShardRecord, progress: Callable[[int], object]) -> None:
    path, sha256 = folder / f"{record.name}.tar", hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
            progress(len(chunk))
    if sha256.hexdigest() != record.sha256:
        raise UsageError(f"{path}: its bytes are not those that the manifest has the sha256 of; {mend(folder)}")


def _check_index(folder: Path, manifest: Manifest, record: ShardRecord) -> None:
    """UsageError unless the index tells of each member what the tar does, and the samples are what they should be."""
    tar = folder / f"{record.name}.tar"
    index = tar.with_suffix(".idx")
    try:
        with open(tar, "rb") as file:
            samples = index_of_tar(file, tar)
        check_samples(samples, tar, record.samples, record.bytes)
        if load_index(index) != samples:
            raise FormatError(f"{index} does not describe {tar.name}: it tells of other members, or of other places")
        expected = [*(f"{image}.{manifest.codec}" for image in manifest.images(record.split)), "json"]
        if any([member.extension for member in sample] != expected for sample in samples):
            raise FormatError(f"{tar}: expected samples of {', '.join(expected)}, as the manifest says")
    except FormatError as error:
        raise UsageError(f"{error}; {mend(folder)}") from error


def _refuse_link(folder: Path, name: str) -> None:
    if wrong := link_out_of(folder, name):
        raise UsageError(wrong)
