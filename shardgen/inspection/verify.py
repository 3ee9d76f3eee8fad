"""Read everything again and say what is not as it should be."""

import hashlib
import io
from dataclasses import dataclass, field

from shardgen.generate.inventory import SHARD_FILE_KINDS, remove_shards, shard_names
from shardgen.generate.manifest import content_of
from shardgen.planning.config import ALGORITHM, fingerprint_of
from shardgen.shard.marker import Marker, read_marker
from srshards.errors import RunError
from srshards.format import (
    MANIFEST_NAME,
    Address,
    FormatError,
    Manifest,
    ShardRecord,
    dump_json,
    load_manifest,
    shard_of_key,
)
from srshards.imaging import codec
from srshards.process.shortages import shortage
from srshards.shards.description import parse_description
from srshards.shards.stored_samples import refuse_link, scale_folders
from srshards.shards.tar_index import Member, check_samples, index_of_tar, load_index
from srshards.storage.output_lock import last_run, locked, output_of
from srshards.storage.store import file_size, read_bytes, remove, storage_of
from srshards.storage.threads import map_in_threads


@dataclass(frozen=True)
class Problem:
    """A broken shard or manifest: its path (a tar's, or a manifest's) and the first thing that is wrong with it."""

    path: Address
    reason: str


@dataclass
class VerifyResult:
    """What `verify` found, over all scales."""

    num_shards: int = 0
    num_manifests: int = 0  # those that are missing, too
    num_samples: int = 0
    num_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)


def verify(folder: Address, fix: bool, num_workers: int) -> VerifyResult:
    """Check every scale in `folder`, reading every byte.

    A shard is whole when it is what its done marker says; where the manifest says otherwise, that is broken. With
    `fix`, broken shards go, and the manifest of each folder where anything is broken: `generate` makes both again.
    StoreError when a store does not give what it has: that says nothing about a shard. UsageError while a run is
    writing there, RunError when one has written what was being read: what it makes is not broken.
    OSError or MemoryError when this process has too many files open or too little memory: that says nothing either.
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
                raise RunError(f"a shardgen run has written to {output} while it was read. Run verify again.")
        result.problems += problems
    return result


def _remove_broken(folder: Address, problems: list[Problem]) -> None:
    remove_shards(folder, [problem.path.stem for problem in problems if problem.path.name != MANIFEST_NAME])
    remove(folder / MANIFEST_NAME)
    storage_of(folder).remove_unfinished([folder])


def _verify_scale(folder: Address, num_workers: int, result: VerifyResult) -> list[Problem]:
    path, names = folder / MANIFEST_NAME, shard_names(folder)
    manifest = _manifest_or_fault(folder)
    if isinstance(manifest, Manifest):
        names |= {record.name for record in manifest.shards}
    result.num_manifests += 1
    result.num_shards += len(names)
    if isinstance(manifest, str):  # against what it says, sound shards might look broken
        return [Problem(path, manifest)]
    faults = map_in_threads(lambda name: _shard_fault(manifest, name), sorted(names), num_workers)
    found = [fault.result() for fault in faults]
    named = zip(sorted(names), found, strict=True)
    problems = [Problem(folder / f"{name}.tar", reason) for name, (reason, _) in named if reason]
    markers = [marker for _, marker in found if marker]
    if len(markers) == len(names) and (reason := _manifest_fault(manifest, markers)):
        problems.append(Problem(path, reason))
    result.num_samples += sum(record.samples for record in manifest.shards)
    result.num_bytes += sum(record.bytes for record in manifest.shards)
    return problems


def _manifest_or_fault(folder: Address) -> Manifest | str:
    """The manifest, sound in itself; or else what is wrong with it."""
    try:
        refuse_link(folder, MANIFEST_NAME)
        manifest = load_manifest(folder, read_bytes)
        settings = manifest.raw["settings"]
        fingerprints = [fingerprint_of(settings, algorithm) for algorithm in range(1, ALGORITHM + 1)]
    except FileNotFoundError:
        return "missing: the run did not finish"
    except (FormatError, RunError, OSError) as error:
        if shortage(error):
            raise
        return str(error)
    except (KeyError, TypeError) as error:
        return f"its settings are not whole ({error!r})"
    sound = manifest.raw.get("fingerprint") in fingerprints
    return manifest if sound else "its settings are not those of its fingerprint"


def _manifest_fault(manifest: Manifest, markers: list[Marker]) -> str | None:
    """What the manifest says otherwise than the shards' markers, from which it was made, or None."""
    for name, content in content_of(markers).items():
        if dump_json(manifest.raw.get(name)) != dump_json(content):
            return f"its {name} are not what the done markers of its shards say"
    return None


def _shard_fault(manifest: Manifest, name: str) -> tuple[str | None, Marker | None]:
    """What is wrong with the shard, or None; and its marker, if that can be read."""
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
    """What the tar must be; None when there must be none, because no photo gave a sample."""
    if marker is None:
        raise RunError(f"its done marker {tar.stem}.json is missing or damaged")
    if marker.record is None and file_size(tar) is not None:
        raise RunError(f"its done marker {tar.stem}.json tells of no samples")
    if marker.record and marker.record.name != tar.stem:
        raise RunError(f"its done marker {tar.stem}.json is that of {marker.record.name}")
    return marker.record


def _check_content(tar: Address, manifest: Manifest, record: ShardRecord) -> None:
    data = _read_tar(tar, record)
    if hashlib.sha256(data).hexdigest() != record.sha256:
        data = _read_tar(tar, record)  # ranges of an object come without a checksum: once may be the network's fault
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise RunError("its sha256 is not its done marker's: the content has changed")
    samples = index_of_tar(io.BytesIO(data), tar)
    if load_index(tar.with_suffix(".idx"), read_bytes) != samples:
        raise RunError(f"its index {tar.with_suffix('.idx').name} does not describe it")
    check_samples(samples, tar, record.samples, record.bytes)
    for members in samples:
        _check_sample(memoryview(data), members[0].name.partition(".")[0], members, manifest)


def _read_tar(tar: Address, record: ShardRecord) -> bytes:
    """The tar's bytes, as many as are recorded: of one that is longer or shorter nothing needs to be fetched."""
    size = file_size(tar)
    if size is None:
        raise RunError("No such file")
    if size != record.bytes:
        raise RunError(f"{size:,} bytes, expected {record.bytes:,}")
    return storage_of(tar).read_large(tar, size)


def _check_sample(data: memoryview, key: str, members: list[Member], manifest: Manifest) -> None:
    names = manifest.images(shard_of_key(key).partition("-")[0])
    expected = [*(f"{image}.{manifest.codec}" for image in names), "json"]
    found = [member.extension for member in members]
    if found != expected:
        raise RunError(f"sample {key} has members {found}, expected {expected}")
    scale, hr_size = manifest.scale, manifest.hr_size
    for name, member in zip(names, members, strict=False):
        shape, edge = _shape(data, member, manifest.codec), hr_size if name in ("hr", "up") else hr_size // scale
        if shape != (edge, edge, 3):
            raise RunError(f"sample {key}: {name} {shape} does not fit scale {scale} and HR size {hr_size}")
    text = members[-1]
    described = parse_description(bytes(data[text.offset : text.offset + text.size]), f"{key}.json")
    num_lrs, records = len(names) - 1 - manifest.has_up, described.get("degradation")
    if manifest.raw["settings"].get("degradation") and (records is None or len(records) != num_lrs):
        raise RunError(f"{key}.json has to tell the degradations of {num_lrs} LR images")


def _shape(data: memoryview, member: Member, codec_name: str) -> tuple[int, ...]:
    try:
        return codec.decode(codec_name, data[member.offset : member.offset + member.size]).shape
    except RunError as error:
        raise RunError(f"{member.name} {error}") from error
