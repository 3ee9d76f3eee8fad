"""Samples as loose PNG files, named as the two-script workflow named them."""

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from shardgen import codec
from shardgen.errors import RunError
from shardgen.format import Address, Manifest, scale_folder
from shardgen.shard_reader import StoredSample, in_advance, open_manifest, scale_folders, stored_samples
from shardgen.sources import printable

_MAX_NAME_BYTES = 255  # of a file, on every file system in use


def unpack(folder: Address, output: Path, split: str | None = None) -> tuple[int, int]:
    """Write `output/scale_4x/CLASS/STEM_hr.png`, `STEM_lr_4x.png` and `STEM_upsampled_4x.png` for every sample.

    Further variants of LR are `STEM_lr1_4x.png` and so on.

    Tiles of one photo carry their place (`STEM_x512_y0`), photos that differ only in their extension keep it
    (`STEM_jpg`, `STEM_png`). Returns the numbers of samples and of files. RunError when a source's path leads out of
    `output`; and, after all others are written, when one is longer than the file system takes.
    """
    count = num_files = 0
    too_long: list[PurePosixPath] = []
    for path in scale_folders(folder):
        manifest = open_manifest(path)
        named = in_advance(_named(manifest, split), lambda pair: (pair[0].load(), pair[1]), path)
        for sample, stem in named:
            target = output / scale_folder(manifest.scale) / stem
            images = [name for name in sample.members if name != "json"]
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                for name in images:
                    path = target.parent / _fitted(target.name, _suffix(name, manifest.scale))
                    _write(path, b"".join(codec.encode("png", sample.image(name))))
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    too_long.append(stem)
                    continue
                raise RunError(f"cannot write {target}: {error.strerror}") from error
            count += 1
            num_files += len(images)
    if too_long:
        raise RunError(
            f"{len(too_long):,} of {len(too_long) + count:,} samples have names that are too long below {output}, e.g. "
            f"{printable(str(too_long[0]))[:200]}; all others are there. Name another --output, with a shorter path."
        )
    return count, num_files


def _suffix(image: str, scale: int) -> str:
    if image == "hr":
        return "_hr.png"
    return f"_{'upsampled' if image == 'up' else image}_{scale}x.png"


def _named(manifest: Manifest, split: str | None) -> Iterator[tuple[StoredSample, PurePosixPath]]:
    """Every sample of the split with its path, less suffix. Names do not depend on which split is asked for."""
    folder = manifest.folder
    by_shard = in_advance(manifest.shards, lambda record: stored_samples(folder, record.name), folder)
    samples = [(record, sample) for record, them in zip(manifest.shards, by_shard, strict=True) for sample in them]
    described = in_advance(samples, lambda pair: pair[1].describe(), folder)
    found = [
        (sample, PurePosixPath(told["source"]), tuple(told["box"]), record.split)
        for (record, sample), told in zip(samples, described, strict=True)
    ]
    sources = {source for _, source, _, _ in found}
    stems = Counter(source.with_suffix("") for source in sources)
    per_source = Counter(source for _, source, _, _ in found)
    for sample, source, box, its_split in found:
        if split in (None, its_split):
            name = source.with_suffix("")
            if stems[name] > 1:
                name = name.with_name(f"{name.name}_{source.suffix[1:]}")
            if per_source[source] > 1:
                name = name.with_name(f"{name.name}_x{box[0]}_y{box[1]}")
            yield sample, _inside(name, sample)


def _inside(path: PurePosixPath, sample: StoredSample) -> PurePosixPath:
    if path.is_absolute() or ".." in path.parts or "\0" in str(path):
        raise RunError(f"{sample.tar}: sample {sample.key} names the source {str(path)!r}, outside the folder")
    return path


def _fitted(stem: str, suffix: str) -> str:
    """`stem + suffix`; where that is too long for a file's name, the stem's end gives way to a hash of all of it."""
    raw, room = os.fsencode(stem), _MAX_NAME_BYTES - len(suffix)
    if len(raw) <= room:
        return stem + suffix
    digest = hashlib.sha256(raw).hexdigest()[:8]
    return raw[: room - 9].decode("utf-8", "ignore") + "_" + digest + suffix


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
