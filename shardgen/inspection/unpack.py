"""Samples as loose PNG files, named as the two-script workflow named them.

Names are decided by all samples of a folder before the first file is written, so nothing is overwritten, and they do
not depend on which split is asked for. A file in the folder of a scale says whose files are there: those of another
run, whose names and sizes may be any, are neither mixed with nor replaced.
"""

import errno
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from shardgen.planning.sources import printable
from srshards.errors import RunError, UsageError
from srshards.format import MANIFEST_NAME, Address, Manifest, dump_json, scale_folder
from srshards.imaging import codec
from srshards.shards.stored_samples import StoredSample, in_advance, open_manifest, scale_folders, stored_samples
from srshards.storage.files import is_temporary, write_atomically

_MAX_NAME_BYTES = 255  # of a file, on every file system in use
_OWNER_NAME = ".shardgen-unpack"  # in the folder of a scale: the hash of the manifest whose samples lie there


@dataclass
class Unpacked:
    """How much was written.

    `renamed` are (source, name) of samples that would have had the name of another; `too_long` are the paths that were
    longer than the file system takes.
    """

    num_samples: int = 0
    num_files: int = 0
    renamed: list[tuple[str, str]] = field(default_factory=list)
    too_long: list[PurePosixPath] = field(default_factory=list)


@dataclass(frozen=True)
class _Described:
    """A sample with what its name is made of."""

    sample: StoredSample
    split: str
    source: PurePosixPath
    x: int
    y: int


@dataclass(frozen=True)
class _Named:
    """A sample and the path of its files below the folder of its scale, less what tells its images apart."""

    sample: StoredSample
    source: str
    path: PurePosixPath
    is_renamed: bool


def unpack(folder: Address, output: Path, split: str | None = None) -> Unpacked:
    """Write `output/scale_4x/CLASS/STEM_hr.png`, `STEM_lr_4x.png` and `STEM_upsampled_4x.png` for every sample.

    Further variants of LR are `STEM_lr1_4x.png` and so on.

    Tiles of one photo carry their place (`STEM_x512_y0`), photos that differ only in their extension keep it
    (`STEM_jpg`, `STEM_png`), and where names are equal even so, or in another case, the samples carry their keys
    (`STEM_000000300042`). UsageError when other files are in the folder of a scale; RunError when a source's path leads
    out of `output`; and, after all others are written, when one is longer than the file system takes.
    """
    manifests = [open_manifest(path) for path in scale_folders(folder)]
    for manifest in manifests:
        _refuse_other_files(output, manifest)
    unpacked = Unpacked()
    for manifest in manifests:
        named = _named(manifest, split)
        _claim(output, manifest)
        _write_samples(output / scale_folder(manifest.scale), manifest, named, unpacked)
    if unpacked.too_long:
        total = len(unpacked.too_long) + unpacked.num_samples
        example = printable(str(unpacked.too_long[0]))[:200]
        raise RunError(
            f"{len(unpacked.too_long):,} of {total:,} samples have names that are too long below {output}, e.g. "
            f"{example}; all others are there. Name another --output, with a shorter path."
        )
    return unpacked


def _write_samples(folder: Path, manifest: Manifest, named: Sequence[_Named], unpacked: Unpacked) -> None:
    loaded = in_advance(named, lambda one: (one, one.sample.load()), manifest.folder)
    for one, sample in loaded:
        target = folder / one.path
        images = [name for name in sample.members if name != "json"]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for name in images:
                path = target.with_name(target.name + _suffix(name, manifest.scale))
                _write(path, b"".join(codec.encode("png", sample.image(name))))
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                unpacked.too_long.append(one.path)
                continue
            raise RunError(f"cannot write {target}: {error.strerror}") from error
        unpacked.num_samples += 1
        unpacked.num_files += len(images)
        if one.is_renamed:
            unpacked.renamed.append((one.source, str(one.path)))


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _suffix(image: str, scale: int) -> str:
    if image == "hr":
        return "_hr.png"
    return f"_{'upsampled' if image == 'up' else image}_{scale}x.png"


# ---- whose files are there


def _refuse_other_files(output: Path, manifest: Manifest) -> None:
    target = output / scale_folder(manifest.scale)
    for place in (output, target):
        if place.exists() and not place.is_dir():
            raise UsageError(f"{place} is a file: name a folder with --output")
    if (output / MANIFEST_NAME).exists():
        raise UsageError(f"{output} is a folder of shards: name another --output")
    if not target.exists() or all(is_temporary(path) for path in target.iterdir()):
        return
    owner = target / _OWNER_NAME
    if not owner.is_file() or owner.read_bytes() != _identity(manifest):
        raise UsageError(
            f"{target} holds other files than those of {manifest.folder}: name another --output, or remove that folder"
        )


def _claim(output: Path, manifest: Manifest) -> None:
    _refuse_other_files(output, manifest)
    target = output / scale_folder(manifest.scale)
    try:
        target.mkdir(parents=True, exist_ok=True)
        write_atomically(target / _OWNER_NAME, _identity(manifest))
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror}") from error


def _identity(manifest: Manifest) -> bytes:
    """Equal for equal samples: the manifest has the hash of every shard."""
    return hashlib.sha256(dump_json(manifest.raw)).hexdigest().encode() + b"\n"


# ---- names


def _named(manifest: Manifest, split: str | None) -> list[_Named]:
    """Every sample of the split with its path."""
    samples = _described(manifest)
    plain, renamed = _plain_paths(samples)
    suffixes = [_suffix(name, manifest.scale) for name in manifest.images("train")]
    paths, keyed = _distinct(plain, [one.sample.key for one in samples], suffixes)
    either = renamed | keyed
    return [
        _Named(one.sample, str(one.source), path, number in either)
        for number, (one, path) in enumerate(zip(samples, paths, strict=True))
        if split in (None, one.split)
    ]


def _described(manifest: Manifest) -> list[_Described]:
    folder = manifest.folder
    by_shard = in_advance(manifest.shards, lambda record: stored_samples(folder, record.name), folder)
    samples = [
        (record.split, sample) for record, them in zip(manifest.shards, by_shard, strict=True) for sample in them
    ]
    told = in_advance(samples, lambda pair: pair[1].describe(), folder)
    return [
        _Described(sample, split, _inside(PurePosixPath(its["source"]), sample), its["box"][0], its["box"][1])
        for (split, sample), its in zip(samples, told, strict=True)
    ]


def _plain_paths(samples: Sequence[_Described]) -> tuple[list[PurePosixPath], set[int]]:
    """The paths as the sources and places alone give them, and the numbers of those that have the extension in them."""
    stems = Counter(source.with_suffix("") for source in {one.source for one in samples})
    per_source = Counter(one.source for one in samples)
    paths, renamed = [], set()
    for number, one in enumerate(samples):
        path = one.source.with_suffix("")
        if stems[path] > 1:
            path = path.with_name(f"{path.name}_{one.source.suffix[1:]}")
            renamed.add(number)
        if per_source[one.source] > 1:
            path = path.with_name(f"{path.name}_x{one.x}_y{one.y}")
        paths.append(path)
    return paths, renamed


def _distinct(
    paths: Sequence[PurePosixPath], keys: Sequence[str], suffixes: Sequence[str]
) -> tuple[list[PurePosixPath], set[int]]:
    """The paths, of which those that are equal, or a folder's, get their samples' keys, and the numbers of these.

    With its key a path may become that of another sample, which then gets its own too. This ends: keys are different,
    so no two paths with keys are equal.
    """
    max_stem_bytes = _MAX_NAME_BYTES - max(map(len, suffixes))
    folders = {_folded(folder) for parent in {path.parent for path in paths} for folder in (parent, *parent.parents)}
    keyed: set[int] = set()
    while True:
        names = [_fitted(path, f"_{keys[n]}" if n in keyed else "", max_stem_bytes) for n, path in enumerate(paths)]
        folded = [_folded(name) for name in names]
        times = Counter(folded)
        equal = {
            number
            for number, name in enumerate(folded)
            if times[name] > 1 or any(name + suffix in folders for suffix in suffixes)
        }
        if equal <= keyed:
            return names, keyed
        keyed |= equal


def _folded(path: PurePosixPath) -> str:
    """Equal for paths that some file systems take for the same."""
    return unicodedata.normalize("NFC", str(path).casefold())


def _inside(path: PurePosixPath, sample: StoredSample) -> PurePosixPath:
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in str(path):
        raise RunError(f"{sample.tar}: sample {sample.key} names the source {str(path)!r}, outside the folder")
    return path


def _fitted(path: PurePosixPath, ending: str, room: int) -> PurePosixPath:
    """The path with the ending. If its name has more than `room` bytes, a hash of all of it stands for its end."""
    raw = os.fsencode(path.name)
    if len(raw) + len(ending) <= room:
        return path.with_name(path.name + ending)
    digest = hashlib.sha256(raw).hexdigest()[:8]
    return path.with_name(f"{raw[: room - len(ending) - 9].decode('utf-8', 'ignore')}_{digest}{ending}")
