"""Open a folder of shards, with every check that does not need sample data."""

import re
from numbers import Integral
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from srshards.errors import ArgumentError, UsageError
from srshards.format import MANIFEST_NAME, Address, FormatError, Manifest, ShardRecord, load_manifest
from srshards.shards.advice import SAME_COMMAND, making_commands
from srshards.shards.cache_contents import Decoder
from srshards.shards.cache_folder import cache_for
from srshards.shards.cached import CachedShards
from srshards.shards.folder import Shards
from srshards.shards.mapped import origin_of, repair_hint
from srshards.storage.output_lock import busy_message
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
from srshards.terminal.text import plural

if TYPE_CHECKING:
    from upath import UPath

_MAKE_FIRST = f"to generate shards, run {making_commands('shards')}"
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
# File names written by `shardgen unpack` and older scripts: derived images, not photos to generate shards from.
_DERIVED_IMAGE = re.compile(r"_(lr|upsampled)_\d+x$")
_URL_AS_PATH = re.compile(r"[a-z][a-z0-9]+:/")  # `s3://bucket` as normalized by pathlib


def open_shards(
    path: "str | Path | UPath",
    *,
    cache: str | Path | None = None,
    cache_bytes: int | None = None,
    decode: bool = False,
    verify: bool = False,
) -> Shards:
    """Open the shards of one scale, after checking that all are present and have the sizes listed in the manifest.

    Only the manifest and a listing of the folder are read. Each process maps a shard when it first reads from it.

    Args:
        path: the folder of one scale, local (`"shards/scale_4x"`) or in an object store (`"s3://bucket/scale_4x"`;
            credentials are found by the store's own library).
        cache: a local folder on a fast disk, to which shards are copied when they are first read, and checked against
            the manifest's SHA-256. Shards in a store are always cached, by default in `~/.cache/sr-shards`.
        cache_bytes: capacity of the cache in bytes. Default: most of the free space there.
        decode: whether to decode images of other codecs than `npy` once, into the cache, and then read them like those.
        verify: whether to read all shards now, as `Shards.verify` does.

    Raises:
        srshards.ArgumentError: a ValueError: `path` is not the folder of one scale, or the cache not a writable local
            folder.
        srshards.UsageError: its base class, for incomplete shards. Like all messages, this one reports the first
            problem and how to fix it.
        srshards.StoreError: a store does not answer.

    Examples:
        >>> import srshards
        >>> shards = srshards.open(folder)
        >>> shards
        <Shards 2x: 39 train, 1 val samples, HR 64 px, npy>
    """
    if cache_bytes is not None and (not isinstance(cache_bytes, Integral) or cache_bytes < 1):
        raise ArgumentError(f"`cache_bytes` {cache_bytes!r}: expected a number of bytes, 1 or more")
    if not isinstance(path, str | PurePath) and not hasattr(path, "protocol"):
        raise ArgumentError(f"`path` {path!r:.100}: expected a string or a path")
    folder = parse_address(path) if isinstance(path, str) else path
    manifest = _manifest(folder)
    cache_folder = cache_for(folder, _cache_folder(cache), cache_bytes, decode and manifest.codec != "npy")
    records = [record for record in manifest.shards if record.samples]
    _check_sizes(manifest, records, indexed=cache_folder is None)
    cached = None
    if cache_folder:
        decoder = Decoder.of(manifest) if decode and manifest.codec != "npy" else None
        cached = CachedShards(cache_folder, origin_of(manifest), records, decoder)
    shards = Shards(folder, manifest, cached)
    if verify:
        shards.verify()
    return shards


def _cache_folder(cache: str | Path | None) -> Path | None:
    if cache is None:
        return None
    if isinstance(cache, Path) and _URL_AS_PATH.match(str(cache)):
        raise ArgumentError(f"`cache` {cache}: expected a local folder, found the address of an object store")
    try:
        return local_path(parse_address(cache) if isinstance(cache, str) else cache)
    except AddressError as error:
        raise ArgumentError(f"`cache`: {error}; the cache must be a local folder") from error


def _manifest(folder: Address) -> Manifest:
    try:
        if storage_of(folder).is_local:
            _check_folder(local_path(folder))
        _refuse_link(folder, MANIFEST_NAME)
        return load_manifest(folder, read_bytes)
    except FileNotFoundError as error:
        raise ArgumentError(f"`path` {folder}: {_missing_manifest(folder)}") from error
    except (FormatError, OSError) as error:
        raise UsageError(str(error)) from error


def _check_folder(folder: Path) -> None:
    try:
        is_folder, exists = folder.is_dir(), folder.exists()
    except (OSError, ValueError) as error:  # not a valid path
        raise ArgumentError(f"`path` {folder}: {getattr(error, 'strerror', error)}") from error
    if not is_folder:
        if exists and (folder.parent / MANIFEST_NAME).is_file():
            raise ArgumentError(
                f"`path` {folder}: this is a file in a folder of shards; pass its folder, `path` {folder.parent}"
            )
        what = "is a file" if exists else "does not exist"
        raise ArgumentError(f"`path` {folder}: expected a folder of shards, but it {what}; {_MAKE_FIRST}")
    if not (folder / MANIFEST_NAME).is_file():
        raise ArgumentError(f"`path` {folder}: {_missing_manifest(folder)}")


def _missing_manifest(folder: Address) -> str:
    """Explain what a folder without a manifest appears to be, and what to do."""
    scales = [folder / name for name in list_folders(folder) if MANIFEST_NAME in list_files(folder / name)]
    if scales:
        return f"expected the folder of one scale; pass `path` {' or '.join(map(str, scales))}"
    if message := busy_message(folder):
        return message
    if any(name.endswith(".tar") for name in list_files(folder)):
        return (
            f"this folder has tars but no {MANIFEST_NAME}: generation did not finish; run {SAME_COMMAND} again to "
            "resume it"
        )
    if storage_of(folder).is_local:
        images = [path for path in local_path(folder).rglob("*") if path.suffix.lower() in _IMAGE_SUFFIXES]
        if images:
            hint = f"to generate shards, run {making_commands('shards', folder)}"
            if any(_DERIVED_IMAGE.search(path.stem) for path in images):
                hr = folder if any(path.stem.endswith("_hr") for path in images) else "PHOTOS"
                hint = f"to make shards of the pairs, run `python -m shardgen pack --hr {hr} --lr {folder} -o shards`"
            return f"this folder has {plural(len(images), 'loose image')} but no shards; {hint}"
    return f"this folder has no {MANIFEST_NAME}; {_MAKE_FIRST}"


def _check_sizes(manifest: Manifest, records: list[ShardRecord], indexed: bool) -> None:
    """Check the sizes of all tars with one listing; with `indexed`, also that each has an index."""
    folder = manifest.folder
    sizes = list_files(folder)
    for record in records:
        for name in (f"{record.name}.tar", *([f"{record.name}.idx"] if indexed else [])):
            if name not in sizes:
                raise UsageError(
                    f"{folder / name} is listed in the manifest but missing; {repair_hint(origin_of(manifest))}"
                )
            _refuse_link(folder, name)
        path, size = folder / f"{record.name}.tar", sizes[f"{record.name}.tar"]
        if size != record.bytes:
            raise UsageError(
                f"{path}: expected {record.bytes:,} bytes as in the manifest, found {size:,}; "
                f"{repair_hint(origin_of(manifest))}"
            )


def _refuse_link(folder: Address, name: str) -> None:
    if wrong := link_out_of(folder, name):
        raise UsageError(wrong)
