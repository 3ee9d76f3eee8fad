"""Opening a folder of shards: what can be known before the first sample is read is checked here."""

import re
from numbers import Integral
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from srshards.errors import ArgumentError, UsageError
from srshards.format import MANIFEST_NAME, Address, FormatError, Manifest, ShardRecord, load_manifest
from srshards.shards.cache_contents import Decoder
from srshards.shards.cache_folder import cache_for
from srshards.shards.cached import CachedShards
from srshards.shards.folder import Shards
from srshards.shards.mapped import origin_of, repair_hint
from srshards.storage.output_lock import being_written, wait_for
from srshards.storage.store import (
    AddressError,
    link_out_of,
    list_files,
    list_folders,
    local_path,
    parse_address,
    read_bytes,
    storage_of,
)

if TYPE_CHECKING:
    from upath import UPath

_MAKE_THEM = "make shards first: shardgen generate -i PHOTOS -o shards -s 4"
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
# What `shardgen unpack` calls its files, and scripts before it: not what shards are made of.
_MADE_OF_PHOTOS = re.compile(r"_(lr|upsampled)_\d+x$")


def open_shards(
    path: "str | Path | UPath",
    *,
    cache: str | Path | None = None,
    cache_bytes: int | None = None,
    decode: bool = False,
    verify: bool = False,
) -> Shards:
    """Open the shards of one scale, all of them there and of the sizes that their manifest says.

    `path` is the folder of one scale on this machine (`"shards/scale_4x"`) or in a store (`"s3://bucket/scale_4x"`;
    credentials are found as the store's own library finds them). Nothing is read but the manifest and a listing of the
    folder. Shards are mapped when a sample is first read, in each process anew.

    `cache` is a folder on a fast disk, into which shards are copied when they are first read, and checked against the
    manifest's sha256; `cache_bytes` is what it may hold, by default most of what is free there. A store always has one,
    by default `~/.cache/sr-shards`. With `decode`, compressed images (`png`, `webp`) are decoded there once, and read
    like `npy` from then on. `verify` reads all shards now, as `Shards.verify` does.

    Raises ArgumentError (a ValueError) when `path` is not the folder of one scale, or the cache cannot be written to;
    UsageError, its base, for shards that are not whole; StoreError when a store does not answer. All name the first
    thing that is wrong and the way out.

    >>> import srshards
    >>> shards = srshards.open(folder)
    >>> shards
    <Shards 2x: 39 train, 1 val samples, HR 64 px, npy>
    """
    if cache_bytes is not None and (not isinstance(cache_bytes, Integral) or cache_bytes < 1):
        raise ArgumentError(f"`cache_bytes` {cache_bytes!r}: expected a number of bytes, 1 or more")
    if not isinstance(path, str | PurePath) and not hasattr(path, "protocol"):
        raise ArgumentError(f"`path` {path!r:.100}: expected a text or a path")
    folder = parse_address(path) if isinstance(path, str) else path
    manifest = _manifest(folder)
    cached_in = cache_for(folder, _cache_folder(cache), cache_bytes, decode and manifest.codec != "npy")
    records = [record for record in manifest.shards if record.samples]
    _check_sizes(folder, records, indexed=cached_in is None)
    cached = None
    if cached_in:
        decoder = Decoder.of(manifest) if decode and manifest.codec != "npy" else None
        cached = CachedShards(cached_in, origin_of(manifest), records, decoder)
    shards = Shards(folder, manifest, cached)
    if verify:
        shards.verify()
    return shards


def _cache_folder(cache: str | Path | None) -> Path | None:
    if cache is None:
        return None
    try:
        return local_path(parse_address(cache) if isinstance(cache, str) else cache)
    except AddressError as error:
        raise ArgumentError(f"`cache`: {error}") from error


def _manifest(folder: Address) -> Manifest:
    try:
        if storage_of(folder).is_local:
            _check_folder(local_path(folder))
        _refuse_link(folder, MANIFEST_NAME)
        return load_manifest(folder, read_bytes)
    except FileNotFoundError as error:
        raise ArgumentError(f"`path` {folder}: {_what_it_is(folder)}") from error
    except (FormatError, OSError) as error:
        raise UsageError(str(error)) from error


def _check_folder(folder: Path) -> None:
    try:
        is_folder, exists = folder.is_dir(), folder.exists()
    except (OSError, ValueError) as error:  # no name that a folder could have
        raise ArgumentError(f"`path` {folder}: {getattr(error, 'strerror', error)}") from error
    if not is_folder:
        if exists and (folder.parent / MANIFEST_NAME).is_file():
            raise ArgumentError(f"`path` {folder}: that is a file of a set; name its folder: `path` {folder.parent}")
        what = "is a file" if exists else "does not exist"
        raise ArgumentError(f"`path` {folder}: expected a folder of shards, but it {what}; {_MAKE_THEM}")
    if not (folder / MANIFEST_NAME).is_file():
        raise ArgumentError(f"`path` {folder}: {_what_it_is(folder)}")


def _what_it_is(folder: Address) -> str:
    """What a folder without a manifest seems to be, and what to do about it."""
    scales = [folder / name for name in list_folders(folder) if MANIFEST_NAME in list_files(folder / name)]
    if scales:
        return f"that is the folder above the scales; name one of them: `path` {' or '.join(map(str, scales))}"
    if output := being_written(folder):
        return wait_for(output)
    if any(name.endswith(".tar") for name in list_files(folder)):
        return (
            f"there are tars but no {MANIFEST_NAME}, so generating was not finished; "
            "run the same shardgen generate command again, it goes on where it was"
        )
    if storage_of(folder).is_local:
        images = [path for path in local_path(folder).rglob("*") if path.suffix.lower() in _IMAGE_SUFFIXES]
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
                raise UsageError(f"{folder / name} is missing, but the manifest lists it; {repair_hint(folder)}")
            _refuse_link(folder, name)
        path, size = folder / f"{record.name}.tar", sizes[f"{record.name}.tar"]
        if size != record.bytes:
            raise UsageError(
                f"{path}: expected {record.bytes:,} bytes as in the manifest, found {size:,}; {repair_hint(folder)}"
            )


def _refuse_link(folder: Address, name: str) -> None:
    if wrong := link_out_of(folder, name):
        raise UsageError(wrong)
