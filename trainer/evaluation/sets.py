"""Named sets of evaluation images: a folder of HR photos, or a split of a shard folder."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from srshards.errors import ArgumentError, UsageError
from srshards.format import MANIFEST_NAME
from srshards.process.resources import available_cpus
from srshards.shards.folder import Shards
from srshards.shards.opening import open_shards
from srshards.storage.store import list_files, list_folders, local_path, storage_of
from trainer.evaluation.checks import is_too_small, or_omit, refuse_pairs, size_needed
from trainer.evaluation.pairs import Pair, photo_pair, shard_pairs
from trainer.evaluation.set_names import NamedSet
from trainer.inference.photo_files import is_photo_name, list_photos
from trainer.metrics_table import OWN


class EvaluationSet(ABC):
    """Images to evaluate a network on: all of a set, or up to `limit` of them, spread evenly.

    `name` is that of its results, `source` describes where they are from. `upsampled` says whether the network's input
    is the upsampled image. `num_images` of `num_found` images are evaluated. `photos` are their files, to be checked by
    `check_photos`; there are none for samples of shards, whose manifest suffices.
    """

    photos: Sequence[Path] = ()

    def __init__(self, name: str, source: str, scale: int, upsampled: bool, limit: int | None, num_found: int) -> None:
        self.name = name
        self.source = source
        self.scale = scale
        self.upsampled = upsampled
        self.num_found = num_found
        self.num_images = min(limit or num_found, num_found)

    @abstractmethod
    def pairs(self, rank: int = 0, ranks: int = 1) -> Iterator[Pair]:
        """Yield images `rank`, `rank + ranks`, ... of those to evaluate, with LR and the network's input.

        UsageError for a photo that cannot be read, RunError for a damaged sample.
        """

    def load(self, max_bytes: int, rank: int = 0, ranks: int = 1) -> int:
        """Read what `pairs` with the same rank would have to compute, and keep up to `max_bytes` of it in memory.

        Returns the number of bytes kept. UsageError as for `pairs`.
        """
        return 0  # samples of shards are mapped into memory

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash that is equal for the same images, wherever they are."""


class ShardSet(EvaluationSet):
    """A split of a shard folder.

    UsageError if its images are too small for one of the metrics, or the network's input cannot be made from them.
    """

    def __init__(
        self,
        name: str,
        shards: Shards,
        split: str,
        upsampled: bool,
        limit: int | None = None,
        metrics: Sequence[str] = OWN,
    ) -> None:
        super().__init__(name, f"{shards.path} ({split})", shards.scale, upsampled, limit, len(shards.split(split)))
        self.shards = shards
        self.split = split
        self.records = shards.split(split).records
        if upsampled:
            shards.inputs("up")
        size = shards.hr_size
        if is_too_small(size, size, shards.scale, metrics):
            raise UsageError(
                f"the images in {shards.path} are too small for an evaluation: {size_needed(shards.scale, metrics)}, "
                f"not {size} x {size} px in all; generate shards with a larger --size{or_omit(metrics)}"
            )

    def pairs(self, rank: int = 0, ranks: int = 1) -> Iterator[Pair]:
        return shard_pairs(self.shards, self.split, self.upsampled, self.num_images, rank, ranks)

    def fingerprint(self) -> str:
        return f"{self.split} {self.shards.fingerprint()}"


class PhotoSet(EvaluationSet):
    """A folder of HR photos, searched recursively. LR is computed as in published tables, by MATLAB's bicubic.

    UsageError if there are no photos in it, or LR images by their names. They are not opened; see `check_photos`.
    """

    def __init__(self, name: str, folder: Path, scale: int, upsampled: bool, limit: int | None = None) -> None:
        self._found = list_photos([folder])
        super().__init__(name, str(folder), scale, upsampled, limit, len(self._found))
        self.photos = [self._found[self.num_found * number // self.num_images] for number in range(self.num_images)]
        self.root = folder if folder.is_dir() else folder.parent
        if folder.is_dir():
            refuse_pairs(self._found, folder)
        self._kept: dict[int, Pair] = {}

    def pairs(self, rank: int = 0, ranks: int = 1) -> Iterator[Pair]:
        return (self._kept.get(number) or self._pair(number) for number in range(rank, self.num_images, ranks))

    def load(self, max_bytes: int, rank: int = 0, ranks: int = 1) -> int:
        num_threads = available_cpus()
        num_bytes = 0
        with ThreadPoolExecutor(num_threads) as pool:
            numbers = range(rank, self.num_images, ranks)
            for first in range(0, len(numbers), num_threads):  # as many photos in memory as threads
                some = numbers[first : first + num_threads]
                for number, pair in zip(some, pool.map(self._pair, some), strict=True):
                    if num_bytes + pair.num_bytes <= max_bytes:
                        self._kept[number] = pair
                        num_bytes += pair.num_bytes
        return num_bytes

    def _pair(self, number: int) -> Pair:
        return photo_pair(self.photos[number], self.root, self.scale, self.upsampled)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for photo in self._found:
            digest.update(f"{photo.relative_to(self.root)}\0{photo.stat().st_size}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def open_set(
    named: NamedSet,
    scale: int,
    upsampled: bool,
    limit: int | None = None,
    metrics: Sequence[str] = OWN,
    *,
    cache: Path | None = None,
    cache_bytes: int | None = None,
    decode: bool = False,
) -> EvaluationSet:
    """Open a set for a network that upscales by `scale` or, with `upsampled`, takes upsampled LR of that scale.

    A shard folder is recognised by its manifest; its validation split is evaluated, or all of it if it has none.
    Samples must be large enough for the `metrics`. `cache`, `cache_bytes` and `decode` are those of `open_shards`.
    UsageError for an address with neither shards nor photos, and for shards of another scale, incomplete ones, or ones
    that a ShardSet refuses.
    """
    try:
        if not _is_shard_folder(named):
            return PhotoSet(named.name, local_path(named.address), scale, upsampled, limit)
        shards = open_shards(named.address, cache=cache, cache_bytes=cache_bytes, decode=decode)
        if shards.scale != scale:
            raise UsageError(
                f"{named.address} is {shards.scale}x, but the network upscales {scale}x; pass shards of {scale}x"
            )
        if not len(shards):
            raise UsageError(f"{named.address} has no samples")
        return ShardSet(named.name, shards, "val" if shards.val else "train", upsampled, limit, metrics)
    except ArgumentError as error:  # names the argument of `open_shards`
        raise UsageError(f"set {named.name!r}: {str(error).replace('`path` ', '')}") from error
    except UsageError as error:
        raise UsageError(f"set {named.name!r}: {error}") from error


def _is_shard_folder(named: NamedSet) -> bool:
    """Return whether to open the address as shards: also a folder that nearly is one, for the message."""
    address = named.address
    files = list_files(address)
    if MANIFEST_NAME in files or not storage_of(address).is_local:
        return True
    if any(is_photo_name(Path(name)) for name in files):  # perhaps beside the archive that they are from
        return False
    if any(name.endswith(".tar") for name in files):
        return True
    return any(MANIFEST_NAME in list_files(address / name) for name in list_folders(address))
