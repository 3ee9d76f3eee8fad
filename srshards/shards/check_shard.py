"""Verify a local shard against the manifest and its index, byte by byte."""

from collections.abc import Callable
from pathlib import Path

from srshards.errors import UsageError
from srshards.format import MANIFEST_NAME, FormatError, Manifest, ShardRecord
from srshards.shards.cache_contents import sha256_of
from srshards.shards.mapped import origin_of, repair_hint
from srshards.shards.tar_index import check_samples, index_of_tar, load_index
from srshards.storage.store import local_path


def check_shard(manifest: Manifest, record: ShardRecord, progress: Callable[[int], object]) -> None:
    """Raise UsageError unless the tar has the manifest's SHA-256 and its index and members match the manifest.

    `progress` is called with the number of bytes of each read.
    """
    tar = local_path(manifest.folder) / f"{record.name}.tar"
    try:
        if sha256_of(tar, progress) != record.sha256:
            raise FormatError(f"{tar}: SHA-256 differs from {MANIFEST_NAME}")
        _check_index(manifest, record, tar)
    except FormatError as error:
        raise UsageError(f"{error}; {repair_hint(origin_of(manifest))}") from error


def _check_index(manifest: Manifest, record: ShardRecord, tar: Path) -> None:
    """Raise FormatError unless the index matches the tar headers and every sample has the expected members."""
    index = tar.with_suffix(".idx")
    with open(tar, "rb") as file:
        samples = index_of_tar(file, tar)
    check_samples(samples, tar, record.samples, record.bytes)
    if load_index(index) != samples:
        raise FormatError(f"{index} does not match {tar.name}: its members or offsets differ")
    expected = manifest.members(record.split)
    if any([member.extension for member in sample] != expected for sample in samples):
        raise FormatError(f"{tar}: expected samples with members {', '.join(expected)}, as in the manifest")
