"""A folder of shards as the trainer finds it: everything that can be known before the first batch is checked here."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from srshards.errors import UsageError
from srshards.format import (
    MANIFEST_NAME,
    Address,
    FormatError,
    Manifest,
    ShardRecord,
    load_manifest,
    lr_name,
)
from srshards.shards.cache_contents import Decoder, sha256_of
from srshards.shards.cache_folder import CacheFolder
from srshards.shards.cached import CachedShards
from srshards.shards.mapped import MappedShard, mend
from srshards.shards.shard_list import ShardList
from srshards.shards.tar_index import check_samples, index_of_tar, load_index
from srshards.storage.output_lock import being_written, wait_for
from srshards.storage.store import link_out_of, list_files, list_folders, local_path, read_bytes

_MAKE_THEM = "make shards first: shardgen generate -i PHOTOS -o shards -s 4"
# What `shardgen unpack` calls its files, and scripts before it: not what shards are made of.
_MADE_OF_PHOTOS = re.compile(r"_(lr|upsampled)_\d+x$")


@dataclass(frozen=True)
class ShardFolder:
    """A scale's folder. `train` and `val` are the shards with samples, in the manifest's order.

    With `cached`, they are read from there: otherwise the folder is one of this machine.
    """

    path: Address
    manifest: Manifest
    train: tuple[ShardRecord, ...]
    val: tuple[ShardRecord, ...]
    cached: CachedShards | None = None

    @property
    def scale(self) -> int:
        return self.manifest.scale

    @property
    def hr_size(self) -> int:
        """Edge of the HR images in px."""
        return self.manifest.hr_size

    @property
    def codec(self) -> str:
        """Of the images as they are read."""
        return "npy" if self.is_decoded else self.manifest.codec

    @property
    def is_decoded(self) -> bool:
        return self.cached is not None and self.cached.is_decoded

    def tar(self, record: ShardRecord) -> Path:
        """Where the shard lies on this machine, or will lie."""
        if self.cached:
            return self.cached.tar(record)
        return local_path(self.path) / f"{record.name}.tar"

    def train_tars(self) -> ShardList:
        tars = list(map(self.tar, self.train))
        names = [tar.name.removesuffix(".tar") for tar in tars]
        return ShardList(tars[0].parent, names, [record.samples for record in self.train])

    def num_bytes(self, record: ShardRecord) -> int:
        """Of the shard as it is read; about, when it is decoded."""
        return self.cached.size(record) if self.cached else record.bytes

    def open(self, record: ShardRecord) -> MappedShard:
        return (self.cached.open if self.cached else MappedShard)(self.tar(record), record.samples)

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
    folder: Address,
    verify: bool = False,
    progress: Callable[[int], object] = lambda num_bytes: None,
    cache: CacheFolder | None = None,
    decoded: bool = False,
    part: int = 0,
    parts: int = 1,
) -> ShardFolder:
    """The shards of one scale, all there and of the sizes that the manifest says.

    With `verify`, also of its sha256, and what their indices say is what the tars hold; of several processes that
    verify, each does a part. With a cache they are read from there, and what it holds of them is verified: what comes
    later is verified when it comes. `decoded` has compressed images decoded there. `progress` is told the bytes that
    were hashed. UsageError names the first thing that is wrong and the way out; StoreError, what a store does not do.
    """
    manifest = _manifest(folder)
    shards = [record for record in manifest.shards if record.samples]
    _check_sizes(folder, shards, indexed=cache is None)
    cached = None
    if cache:
        decoder = Decoder.of(manifest) if decoded and manifest.codec != "npy" else None
        cached = CachedShards(cache, folder, shards, decoder)
    if verify and cached:
        cached.verify(progress, part, parts)
    elif verify:
        for record in shards[part::parts]:
            _check_hash(folder, record, progress)
            _check_index(manifest, record)
    of = {split: tuple(record for record in shards if record.split == split) for split in ("train", "val")}
    return ShardFolder(folder, manifest, of["train"], of["val"], cached)


def _manifest(folder: Address) -> Manifest:
    try:
        if isinstance(folder, Path):
            _check_folder(folder)
        _refuse_link(folder, MANIFEST_NAME)
        return load_manifest(folder, read_bytes)
    except FileNotFoundError as error:
        raise UsageError(f"--shards {folder}: {_what_it_is(folder)}") from error
    except (FormatError, OSError) as error:
        raise UsageError(str(error)) from error


def _check_folder(folder: Path) -> None:
    try:
        is_folder, exists = folder.is_dir(), folder.exists()
    except (OSError, ValueError) as error:  # no name that a folder could have
        raise UsageError(f"--shards {folder}: {getattr(error, 'strerror', error)}") from error
    if not is_folder:
        what = "is a file" if exists else "does not exist"
        raise UsageError(f"--shards {folder}: expected a folder of shards, but it {what}; {_MAKE_THEM}")
    if not (folder / MANIFEST_NAME).is_file():
        raise UsageError(f"--shards {folder}: {_what_it_is(folder)}")


def _what_it_is(folder: Address) -> str:
    """What a folder without a manifest seems to be, and what to do about it."""
    scales = [folder / name for name in list_folders(folder) if MANIFEST_NAME in list_files(folder / name)]
    if scales:
        return f"that is the folder above the scales; name one of them: --shards {' or '.join(map(str, scales))}"
    if output := being_written(folder):
        return wait_for(output)
    if any(name.endswith(".tar") for name in list_files(folder)):
        return (
            f"there are tars but no {MANIFEST_NAME}, so generating was not finished; "
            "run the same shardgen generate command again, it goes on where it was"
        )
    if isinstance(folder, Path):
        images = [path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")]
        if images:
            made = any(_MADE_OF_PHOTOS.search(path.stem) for path in images)
            make_them = _MAKE_THEM if made else _MAKE_THEM.replace("PHOTOS", str(folder))
            return f"there are {len(images):,} loose images but no shards; {make_them}"
    return f"there is no {MANIFEST_NAME} in it; {_MAKE_THEM}"


def _check_sizes(folder: Address, records: list[ShardRecord], indexed: bool) -> None:
    """By one listing. An index is made from the tar when it comes to a cache; otherwise it has to be there."""
    sizes = list_files(folder)
    for record in records:
        for name in (f"{record.name}.tar", *([f"{record.name}.idx"] if indexed else [])):
            if name not in sizes:
                raise UsageError(f"{folder / name} is missing, but the manifest lists it; {mend(folder)}")
            _refuse_link(folder, name)
        path, size = folder / f"{record.name}.tar", sizes[f"{record.name}.tar"]
        if size != record.bytes:
            raise UsageError(
                f"{path}: expected {record.bytes:,} bytes as in the manifest, found {size:,}; {mend(folder)}"
            )


def _check_hash(folder: Address, record: ShardRecord, progress: Callable[[int], object]) -> None:
    path = local_path(folder) / f"{record.name}.tar"
    if sha256_of(path, progress) != record.sha256:
        raise UsageError(f"{path}: its bytes are not those that the manifest has the sha256 of; {mend(folder)}")


def _check_index(manifest: Manifest, record: ShardRecord) -> None:
    """UsageError unless the index tells of each member what the tar does, and the samples are what they should be."""
    tar = local_path(manifest.folder) / f"{record.name}.tar"
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
        raise UsageError(f"{error}; {mend(tar.parent)}") from error


def _refuse_link(folder: Address, name: str) -> None:
    if wrong := link_out_of(folder, name):
        raise UsageError(wrong)
