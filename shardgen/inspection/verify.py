"""Verify shards: read every byte and report broken shards and manifests."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field

from shardgen.generate.inventory import SHARD_FILE_KINDS, open_shards_message, remove_shards, shard_names
from shardgen.generate.manifest import manifest_content
from shardgen.planning.config import ALGORITHM, fingerprint_of
from shardgen.shard.marker import Marker, read_marker
from srshards.errors import RunError, UsageError
from srshards.format import (
    MANIFEST_NAME,
    Address,
    FormatError,
    Manifest,
    ShardRecord,
    dump_json,
    load_manifest,
    shard_of_key,
    split_of,
)
from srshards.imaging import codec
from srshards.process.shortages import shortage
from srshards.shards.description import parse_description
from srshards.shards.stored_samples import refuse_link, scale_folders
from srshards.shards.tar_index import Member, check_samples, index_of_tar, load_index
from srshards.storage.output_lock import last_run, locked, output_of
from srshards.storage.reader_lock import has_readers
from srshards.storage.store import file_size, read_bytes, remove, storage_of
from srshards.storage.threads import map_in_threads


@dataclass(frozen=True)
class Problem:
    """A broken shard or manifest: the path of the tar or manifest, and the first error found."""

    path: Address
    reason: str


@dataclass
class VerifyResult:
    """The result of `verify`, over all scales."""

    num_shards: int = 0
    num_manifests: int = 0  # including missing ones
    num_samples: int = 0
    num_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)


def verify(folder: Address, fix: bool, num_workers: int) -> VerifyResult:
    """Check every byte of every scale in `folder`.

    A shard is intact if it agrees with its done marker; a manifest is broken if it disagrees with intact shards. With
    `fix`, broken shards are deleted, and so is the manifest of each folder with a broken shard or manifest; the same
    `generate` or `pack` command rebuilds both.

    Errors that say nothing about a shard are raised: StoreError when a store's requests fail; UsageError with `fix`
    while a run is writing to the folder, or while a reader has a folder with broken shards open; RunError when a run
    wrote to it during the check; OSError or MemoryError when this process has too many open files or too little memory.
    """
    result = VerifyResult()
    for scale_folder in scale_folders(folder):
        output = output_of(scale_folder)
        if fix:
            with locked(output):
                problems = _verify_scale(scale_folder, num_workers, result)
                if problems:
                    _remove_broken(scale_folder, problems)
        else:
            before = last_run(output)
            problems = _verify_scale(scale_folder, num_workers, result)
            if problems and last_run(output) != before:
                raise RunError(f"a run of shardgen wrote to {output} during the check; run verify again")
        result.problems += problems
    return result


def _remove_broken(folder: Address, problems: list[Problem]) -> None:
    names = [problem.path.stem for problem in problems if problem.path.name != MANIFEST_NAME]
    if names and has_readers(folder):
        raise UsageError(f"{open_shards_message(folder, len(names))}, or omit --fix to list them")
    remove_shards(folder, names)
    remove(folder / MANIFEST_NAME)
    storage_of(folder).remove_unfinished([folder])


def _verify_scale(folder: Address, num_workers: int, result: VerifyResult) -> list[Problem]:
    path, names = folder / MANIFEST_NAME, shard_names(folder)
    manifest = _manifest_or_fault(folder)
    if isinstance(manifest, Manifest):
        names |= {record.name for record in manifest.shards}
    result.num_manifests += 1
    result.num_shards += len(names)
    if isinstance(manifest, str):  # compared with a broken manifest, intact shards could look broken
        return [Problem(path, manifest)]
    futures = map_in_threads(lambda name: _shard_fault(manifest, name), sorted(names), num_workers)
    checked = [future.result() for future in futures]
    by_name = zip(sorted(names), checked, strict=True)
    problems = [Problem(folder / f"{name}.tar", fault) for name, (fault, _) in by_name if fault]
    markers = {name: marker for name, (_, marker) in zip(sorted(names), checked, strict=True) if marker}
    if len(markers) == len(names) and (reason := _manifest_fault(manifest, markers)):
        problems.append(Problem(path, reason))
    result.num_samples += sum(record.samples for record in manifest.shards)
    result.num_bytes += sum(record.bytes for record in manifest.shards)
    return problems


def _manifest_or_fault(folder: Address) -> Manifest | str:
    """Return the manifest if it is valid by itself, otherwise its first error."""
    try:
        refuse_link(folder, MANIFEST_NAME)
        manifest = load_manifest(folder, read_bytes)
        settings = manifest.raw["settings"]
        fingerprints = [fingerprint_of(settings, algorithm) for algorithm in range(1, ALGORITHM + 1)]
    except FileNotFoundError:
        return "missing: generation did not finish"
    except (FormatError, RunError, OSError) as error:
        if shortage(error):
            raise
        return str(error)
    except (KeyError, TypeError) as error:
        return f"its settings are incomplete ({error!r})"
    is_valid = manifest.raw.get("fingerprint") in fingerprints
    return manifest if is_valid else "its settings do not match its fingerprint"


def _manifest_fault(manifest: Manifest, markers: Mapping[str, Marker]) -> str | None:
    """Return the first difference between the manifest and the markers, or None."""
    expected = manifest_content(markers, manifest.raw["settings"])
    if manifest.raw["format_version"] < 3:
        del expected["profiles"]
    for name, content in expected.items():
        if dump_json(manifest.raw.get(name)) != dump_json(content):
            return f"its {name} do not match the done markers of the shards"
    return None


def _shard_fault(manifest: Manifest, name: str) -> tuple[str | None, Marker | None]:
    """Return the shard's first error, or None; and its marker, or None if it cannot be read."""
    tar, marker = manifest.folder / f"{name}.tar", None
    try:
        for kind in SHARD_FILE_KINDS:
            refuse_link(manifest.folder, f"{name}.{kind}")
        marker = read_marker(manifest.folder / f"{name}.json")
        if record := _record_of(tar, marker):
            _check_content(tar, manifest, record)
    except (RunError, FormatError, OSError) as error:
        if shortage(error):
            raise
        return str(error), marker
    return None, marker


def _record_of(tar: Address, marker: Marker | None) -> ShardRecord | None:
    """Return the expected tar's record; None if no photo produced a sample, so that there must be no tar."""
    if marker is None:
        raise RunError(f"its done marker {tar.stem}.json is missing or damaged")
    if marker.record is None and file_size(tar) is not None:
        raise RunError(f"its done marker {tar.stem}.json records no samples, but the tar exists")
    if marker.record and marker.record.name != tar.stem:
        raise RunError(f"its done marker {tar.stem}.json belongs to {marker.record.name}")
    return marker.record


def _check_content(tar: Address, manifest: Manifest, record: ShardRecord) -> None:
    data = _read_tar(tar, record)
    if hashlib.sha256(data).hexdigest() != record.sha256:
        data = _read_tar(tar, record)  # stores send ranges without a checksum, so it may have been the network
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise RunError("its SHA-256 differs from its done marker: the content has changed")
    samples = index_of_tar(io.BytesIO(data), tar)
    if load_index(tar.with_suffix(".idx"), read_bytes) != samples:
        raise RunError(f"its index {tar.with_suffix('.idx').name} does not match it")
    check_samples(samples, tar, record.samples, record.bytes)
    for members in samples:
        _check_sample(memoryview(data), members[0].name.partition(".")[0], members, manifest)


def _read_tar(tar: Address, record: ShardRecord) -> bytes:
    """Return the tar's bytes, after a check of its size. RunError when it is missing or has another size."""
    size = file_size(tar)
    if size is None:
        raise RunError("missing")
    if size != record.bytes:
        raise RunError(f"expected {record.bytes:,} bytes, found {size:,}")
    return storage_of(tar).read_large(tar, size)


def _check_sample(data: memoryview, key: str, members: list[Member], manifest: Manifest) -> None:
    split = split_of(shard_of_key(key))
    names = manifest.images(split)
    expected = manifest.members(split)
    found = [member.extension for member in members]
    if found != expected:
        raise RunError(f"sample {key}: expected members {expected}, found {found}")
    scale, hr_size = manifest.scale, manifest.hr_size
    for name, member in zip(names, members, strict=False):
        shape, edge = _shape(data, member), hr_size if name in ("hr", "up") else hr_size // scale
        if shape != (edge, edge, 3):
            expected_shape = f"{(edge, edge, 3)} at scale {scale} and HR {hr_size} px"
            raise RunError(f"sample {key}: {name} has shape {shape}, expected {expected_shape}")
    text = members[-1]
    described = parse_description(bytes(data[text.offset : text.offset + text.size]), f"{key}.json")
    num_lrs, drawn = len(names) - 1 - manifest.has_up, described.get("degradation")
    if manifest.raw["settings"].get("degradation") and (drawn is None or len(drawn) != num_lrs):
        raise RunError(f"{key}.json: expected the degradations of {num_lrs} LR images, found {len(drawn or ())}")


def _shape(data: memoryview, member: Member) -> tuple[int, ...]:
    try:
        codec_name = member.extension.rpartition(".")[2]
        return codec.decode(codec_name, data[member.offset : member.offset + member.size]).shape
    except RunError as error:
        raise RunError(f"{member.name} {error}") from error
