"""Write samples as loose PNG files, in one of the layouts of `unpack_layouts`.

Names are determined from all samples of a folder before the first file is written. So no file overwrites another, and
names do not depend on the requested split. A file in each scale's output folder identifies the shards it was written
from, so that files of other shards are neither mixed in nor replaced.
"""

import errno
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from shardgen.inspection.unpack_layouts import (
    META_INFO_NAME,
    ending,
    image_path,
    meta_info,
    split_folder,
    stem_path,
    written_images,
)
from shardgen.planning.sources import shown
from srshards.errors import RunError, UsageError
from srshards.format import MANIFEST_NAME, SPLITS, Address, Manifest, scale_folder
from srshards.imaging import codec
from srshards.shards.stored_samples import StoredSample, map_in_order, open_manifest, scale_folders, stored_samples
from srshards.storage.files import is_temporary, write_atomically

_MAX_NAME_BYTES = 255  # the limit of all common file systems
_OWNER_NAME = ".shardgen-unpack"  # in a scale's output folder: the hash of the manifest it was written from


@dataclass
class Unpacked:
    """The result of `unpack`.

    `renamed` are (source, name) of samples whose plain name was not unique; `too_long` are paths longer than the file
    system allows.
    """

    num_samples: int = 0
    num_files: int = 0
    renamed: list[tuple[str, str]] = field(default_factory=list)
    too_long: list[PurePosixPath] = field(default_factory=list)


@dataclass(frozen=True)
class _Described:
    """A sample with the values that determine its name."""

    sample: StoredSample
    split: str
    source: PurePosixPath
    x: int
    y: int


@dataclass(frozen=True)
class _Named:
    """A sample and the path of its files in the scale's folder, without the endings of the images."""

    sample: StoredSample
    split: str
    source: str
    path: PurePosixPath
    is_renamed: bool


def unpack(folder: Address, output: Path, split: str | None = None, layout: str = "old") -> Unpacked:
    """Write the images of every sample to `output/scale_4x`, as docs/reference/formats.md describes for each layout.

    Tiles of a photo have their position added (`STEM_x512_y0`); photos that differ only in their extension have it
    added (`STEM_jpg`, `STEM_png`). If names are still equal, ignoring case, the samples' keys are added
    (`STEM_000000300042`). UsageError when a scale's folder contains other files; RunError when a source's path leads
    out of `output`, and, after all other samples are written, when a path is longer than the file system allows.
    """
    manifests = [open_manifest(path) for path in scale_folders(folder)]
    for manifest in manifests:
        _refuse_other_files(output, manifest, layout)
    unpacked = Unpacked()
    for manifest in manifests:
        named = _named(manifest, split, layout)
        _claim(output, manifest, layout)
        target = output / scale_folder(manifest.scale)
        written = _write_samples(target, manifest, named, layout, unpacked)
        if layout == "basicsr":
            _write_meta_info(target, manifest, written)
    if unpacked.too_long:
        total = len(unpacked.too_long) + unpacked.num_samples
        example = shown(str(unpacked.too_long[0]))
        raise RunError(
            f"{len(unpacked.too_long):,} of {total:,} samples were not written, because their names are too long in "
            f"{output}, e.g. {example}; pass another --output with a shorter path"
        )
    return unpacked


def _write_samples(
    folder: Path, manifest: Manifest, named: Sequence[_Named], layout: str, unpacked: Unpacked
) -> list[_Named]:
    """Write the samples and return those that were written, which are all whose paths are not too long."""
    written = []
    loaded = map_in_order(named, lambda item: (item, item.sample.load()), manifest.folder)
    for item, sample in loaded:
        images = written_images((name for name in sample.members if name != "json"), layout)
        try:
            for name in images:
                path = folder / image_path(item.path, name, item.split, manifest.scale, layout)
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, b"".join(codec.encode("png", sample.image(name))))
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                unpacked.too_long.append(item.path)
                continue
            raise RunError(f"cannot write {folder / item.path}: {error.strerror}") from error
        written.append(item)
        unpacked.num_samples += 1
        unpacked.num_files += len(images)
        if item.is_renamed:
            unpacked.renamed.append((item.source, str(item.path)))
    return written


def _write_meta_info(folder: Path, manifest: Manifest, written: Sequence[_Named]) -> None:
    for split in SPLITS:
        stems = [item.path for item in written if item.split == split]
        if stems:
            path = folder / split_folder(split) / META_INFO_NAME
            try:
                write_atomically(path, meta_info(stems, manifest.hr_size))
            except OSError as error:
                raise RunError(f"cannot write {path}: {error.strerror}") from error


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


# ---- ownership of the output folder


def _refuse_other_files(output: Path, manifest: Manifest, layout: str) -> None:
    target = output / scale_folder(manifest.scale)
    for path in (output, target):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file; pass a folder as --output")
        if (path / MANIFEST_NAME).exists():
            raise UsageError(f"{path} is a folder of shards; pass another --output")
    if not target.exists() or all(is_temporary(path) for path in target.iterdir()):
        return
    owner = target / _OWNER_NAME
    if not owner.is_file() or owner.read_bytes() != _identity(manifest, layout):
        raise UsageError(
            f"{target} contains files that unpack did not write from {manifest.folder} with --layout {layout}; pass "
            "another --output"
        )


def _claim(output: Path, manifest: Manifest, layout: str) -> None:
    _refuse_other_files(output, manifest, layout)
    target = output / scale_folder(manifest.scale)
    try:
        target.mkdir(parents=True, exist_ok=True)
        write_atomically(target / _OWNER_NAME, _identity(manifest, layout))
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror}") from error


def _identity(manifest: Manifest, layout: str) -> bytes:
    """Return the hash of the manifest, and the layout unless it is `old`, which earlier releases did not name."""
    return (manifest.sha256 if layout == "old" else f"{manifest.sha256} {layout}").encode() + b"\n"


# ---- names


def _named(manifest: Manifest, split: str | None, layout: str) -> list[_Named]:
    """Return every sample of the split with its path."""
    samples = _described(manifest)
    plain, with_extension = _plain_paths(samples)
    stems = [stem_path(path, layout) for path in plain]
    suffixes = [ending(name, manifest.scale, layout) for name in written_images(manifest.images("train"), layout)]
    paths, with_key = _distinct(stems, [item.sample.key for item in samples], suffixes)
    renamed = with_extension | with_key
    return [
        _Named(item.sample, item.split, str(item.source), path, number in renamed)
        for number, (item, path) in enumerate(zip(samples, paths, strict=True))
        if split in (None, item.split)
    ]


def _described(manifest: Manifest) -> list[_Described]:
    folder = manifest.folder
    by_shard = map_in_order(manifest.shards, lambda record: stored_samples(folder, record.name), folder)
    samples = [
        (record.split, sample)
        for record, of_shard in zip(manifest.shards, by_shard, strict=True)
        for sample in of_shard
    ]
    descriptions = map_in_order(samples, lambda pair: pair[1].describe(), folder)
    return [
        _Described(sample, split, _require_inside(PurePosixPath(json["source"]), sample), *json["box"][:2])
        for (split, sample), json in zip(samples, descriptions, strict=True)
    ]


def _plain_paths(samples: Sequence[_Described]) -> tuple[list[PurePosixPath], set[int]]:
    """Return the paths given by sources and positions, and the indices of those with an added extension."""
    stems = Counter(source.with_suffix("") for source in {item.source for item in samples})
    per_source = Counter(item.source for item in samples)
    paths, with_extension = [], set()
    for number, item in enumerate(samples):
        path = item.source.with_suffix("")
        if stems[path] > 1:
            path = path.with_name(f"{path.name}_{item.source.suffix[1:]}")
            with_extension.add(number)
        if per_source[item.source] > 1:
            path = path.with_name(f"{path.name}_x{item.x}_y{item.y}")
        paths.append(path)
    return paths, with_extension


def _distinct(
    paths: Sequence[PurePosixPath], keys: Sequence[str], suffixes: Sequence[str]
) -> tuple[list[PurePosixPath], set[int]]:
    """Add the samples' keys to paths that equal another one or a folder. Return all paths and the indices of these.

    A path with a key can equal another sample's path, which then gets its key too. This terminates, because no two
    paths with keys are equal.
    """
    max_stem_bytes = _MAX_NAME_BYTES - max(map(len, suffixes))
    folders = {_folded(folder) for parent in {path.parent for path in paths} for folder in (parent, *parent.parents)}
    with_key: set[int] = set()
    while True:
        names = [_fitted(path, f"_{keys[n]}" if n in with_key else "", max_stem_bytes) for n, path in enumerate(paths)]
        folded = [_folded(name) for name in names]
        counts = Counter(folded)
        ambiguous = {
            number
            for number, name in enumerate(folded)
            if counts[name] > 1 or any(name + suffix in folders for suffix in suffixes)
        }
        if ambiguous <= with_key:
            return names, with_key
        with_key |= ambiguous


def _folded(path: PurePosixPath) -> str:
    """Return equal strings for paths that some file systems treat as equal."""
    return unicodedata.normalize("NFC", str(path).casefold())


def _require_inside(path: PurePosixPath, sample: StoredSample) -> PurePosixPath:
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in str(path):
        raise RunError(f"{sample.tar}: sample {sample.key} has the source {str(path)!r}, which is outside the folder")
    return path


def _fitted(path: PurePosixPath, ending: str, max_bytes: int) -> PurePosixPath:
    """Append the ending to the path's name; the end of a name longer than `max_bytes` is replaced by a hash of it."""
    raw = os.fsencode(path.name)
    if len(raw) + len(ending) <= max_bytes:
        return path.with_name(path.name + ending)
    digest = hashlib.sha256(raw).hexdigest()[:8]
    return path.with_name(f"{raw[: max_bytes - len(ending) - 9].decode('utf-8', 'ignore')}_{digest}{ending}")
