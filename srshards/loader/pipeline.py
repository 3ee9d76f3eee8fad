"""Patches as a pipeline of the `webdataset` package, which streams tars from any source."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
import webdataset as wds
from torch.utils.data import get_worker_info

from srshards.errors import ArgumentError, RunError
from srshards.format import FormatError, lr_name, shard_of_key
from srshards.imaging import codec
from srshards.imaging.pixels import Pixels
from srshards.imaging.upsampling import UPSAMPLING_METHODS
from srshards.loader.arguments import MAX_SEED, Ranks, checked_int, patch_grid, ranks_of
from srshards.loader.patch_pair import PatchPair
from srshards.loader.shared_epoch import SharedEpoch
from srshards.loader.tar_streams import stream_samples
from srshards.sampling.counter_rng import shuffled
from srshards.sampling.patches import NUM_SYMMETRIES, PatchGrid
from srshards.sampling.schedule import BatchSamples
from srshards.shards.description import parse_description
from srshards.shards.folder import Shards, check_input
from srshards.storage.store import parse_address

_SHARDS = 0  # distinguishes this permutation from others with the same seed


class PatchPipeline(wds.DataPipeline, wds.compat.FluidInterface):  # type: ignore[misc]  # webdataset has no types
    """A `webdataset` pipeline of `PatchPair`s.

    `map`, `batched` and similar methods return a new pipeline; `with_epoch` and `repeat` modify and return this one.
    """

    def __init__(self, epoch: SharedEpoch, *stages: Callable[..., Iterator[Any]]) -> None:
        super().__init__(*stages)
        self._epoch = epoch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, 0 or more, in all processes. It determines order and patches from the next iteration on."""
        self._epoch.set(epoch)


def webdataset(
    shards: Shards | str | Sequence[str | Path],
    patch_size: int,
    *,
    input: Literal["lr", "up"] = "lr",
    split: Literal["train", "val"] = "train",
    seed: int = 0,
    shuffle: int = 1000,
    augment: bool = True,
    transform: Callable[[PatchPair], PatchPair] | None = None,
    rank: int | None = None,
    world_size: int | None = None,
) -> PatchPipeline:
    """Return a `webdataset` pipeline with one patch per sample, for any `DataLoader` or `webdataset.WebLoader`.

    Tars are streamed and never copied to this machine, which suits remote shards; where shards can be mapped,
    `PatchLoader` and `PatchDataset` are faster. The shards are shuffled, distributed to ranks and workers, and read one
    after the other. Patches are cut as by `PatchDataset` (determined by seed, epoch and the sample's key) and shuffled
    in a buffer of `shuffle` patches per worker. The same seed and epoch give the same patches; the same number of ranks
    and workers also gives the same order. Call `set_epoch` before each epoch. Ranks get complete shards, so their
    numbers of patches differ: limit them with `.with_epoch(n)`.

    Args:
        shards: the result of `srshards.open`; or addresses of tars whose members are named as in
            docs/reference/formats.md: a list, or one string with a range such as `{000000..000007}`. An address is a
            path, an object-store address such as `s3://...`, a URL, or `pipe:` followed by a shell command that writes
            a tar.
        patch_size: edge length of the HR patches in px: divisible by the scale, at most the HR size.
        input: `"lr"`, or `"up"` for the upsampled image, which has the size of HR. It is computed from LR if the shards
            do not have it.
        split: `"train"` or `"val"`, if `shards` are `Shards`.
        seed: seed of order, crops, flips and variants, 0 to 2^63 - 1.
        shuffle: size of the shuffle buffer in patches; 0 keeps samples and shards in their stored order.
        augment: whether to flip patches and rotate them by multiples of 90 degrees.
        transform: called with each item; its result replaces the item.
        rank: rank of this process. Default: from `torch.distributed` if it is initialised, else 0.
        world_size: number of processes. Default: from `torch.distributed`, else 1.

    Raises:
        srshards.ArgumentError: a ValueError that names the argument and says what to pass instead.
        srshards.RunError: while iterating, when a tar or an image in it cannot be read.
        srshards.StoreError: while iterating, when a store does not answer.

    Examples:
        >>> pipeline = webdataset(shards, patch_size=16)
        >>> pair = next(iter(pipeline))
        >>> pair.hr.shape, pair.input.shape
        ((16, 16, 3), (8, 8, 3))
        >>> from torch.utils.data import DataLoader
        >>> sum(len(batch.hr) for batch in DataLoader(pipeline, batch_size=4))
        39
    """
    seed, shuffle = checked_int("seed", seed, 0, MAX_SEED), checked_int("shuffle", shuffle, 0)
    patch_size = checked_int("patch_size", patch_size, 1)
    ranks = ranks_of(rank, world_size, None, None)
    if isinstance(shards, Shards):
        patch_grid(shards, patch_size, input, augment, split)
        tars = _tars(shards, split)
        needed = {"up"} if shards.inputs(input) == ("up",) else {"lr"}
    else:
        check_input(input)
        tars = _urls(shards)
        needed = {input, "lr"}  # whether `up` is stored is not known
    if len(tars) < ranks.world_size:
        raise ArgumentError(f"`world_size` {ranks.world_size}: expected at most the number of shards, {len(tars)}")
    epoch = SharedEpoch()
    pipeline = PatchPipeline(
        epoch,
        _Tars(tars, seed, epoch, ranks, bool(shuffle)),
        _Reader(frozenset(needed)),
        _Cutter(patch_size, input, augment, seed, epoch),
    )
    if shuffle:
        pipeline.append(_Shuffle(shuffle, seed, epoch, ranks))
    if transform:
        pipeline.append(wds.map(transform))
    return pipeline


@dataclass(frozen=True)
class _Tar:
    """The address of a shard, and its number of samples if known."""

    url: str
    samples: int | None = None


def _tars(shards: Shards, split: str) -> list[_Tar]:
    return [_Tar(str(shards.path / f"{record.name}.tar"), record.samples) for record in shards.split(split).records]


def _urls(shards: str | Sequence[str | Path]) -> list[_Tar]:
    if isinstance(shards, str):
        shards = wds.shardlists.expand_urls(shards)
    if not isinstance(shards, list | tuple) or not shards or not all(isinstance(url, str | Path) for url in shards):
        raise ArgumentError(f"`shards` {shards!r:.100}: expected the result of srshards.open, or addresses of tars")
    urls = list(map(str, shards))
    for url in urls:
        if "://" not in url and not url.startswith("pipe:") and parse_address(url).is_dir():
            raise ArgumentError(f"`shards` {url} is a folder; open it with srshards.open, or pass its tars")
    return [_Tar(url) for url in urls]


def _worker() -> tuple[int, int]:
    """Return the number of this `DataLoader` worker, and the number of workers."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


@dataclass(frozen=True)
class _Tars:
    """The tars of this rank and worker. `ranks` is set by the process that creates the pipeline: workers have none."""

    tars: list[_Tar]
    seed: int
    epoch: SharedEpoch
    ranks: Ranks
    shuffle: bool

    def __call__(self) -> Iterator[_Tar]:
        count = len(self.tars)
        order = shuffled(count, self.seed, int(self.epoch), _SHARDS).tolist() if self.shuffle else range(count)
        of_rank = islice(order, self.ranks.rank, None, self.ranks.world_size)
        worker, workers = _worker()
        return (self.tars[number] for number in islice(of_rank, worker, None, workers))


@dataclass(frozen=True)
class _Reader:
    """Reads the required members of each sample: HR, the json, and all images of the kinds `inputs`, `lr` or `up`."""

    inputs: frozenset[str]

    def __call__(self, tars: Iterable[_Tar]) -> Iterator[dict[str, Any]]:
        for tar in tars:
            yield from stream_samples(tar.url, tar.samples, self._is_wanted)

    def _is_wanted(self, file_name: str) -> bool:
        name = file_name.partition(".")[2].partition(".")[0]
        return name in ("hr", "json") or name.rstrip("0123456789") in self.inputs


@dataclass(frozen=True)
class _Cutter:
    patch_size: int
    input: str
    augment: bool
    seed: int
    epoch: SharedEpoch

    def __call__(self, samples: Iterable[dict[str, Any]]) -> Iterator[PatchPair]:
        return map(self._pair, samples)

    def _pair(self, sample: dict[str, Any]) -> PatchPair:
        key, where = sample["__key__"].rpartition("/")[2], f"{sample['__url__']}: sample {sample['__key__']}"
        try:
            shard_of_key(key)
        except FormatError as error:
            raise RunError(f"{where}: {error}") from error
        samples = BatchSamples(np.array([int(self.epoch)]), np.array([int(key)]))
        names = self._input_names(sample)
        (variant,) = samples.variants(self.seed, len(names)).tolist()
        hr, small = (_image(sample, name, where) for name in ("hr", names[variant]))
        grid = self._grid(hr, small, names[variant], sample, where)
        pair = PatchPair(*(np.empty((edge, edge, 3), np.uint8) for edge in (grid.patch, grid.input_patch)))
        grid.cut(hr, small, grid.cuts(self.seed, samples)[0], *pair)
        return pair

    def _input_names(self, sample: dict[str, Any]) -> list[str]:
        """Return the names of the images that the input is made from: `up`, if it was read, or all variants of LR."""
        num_lrs = sum(name.startswith("lr") for name in sample)
        if self.input == "up" and (not num_lrs or any(name.startswith("up.") for name in sample)):
            return ["up"]
        return list(map(lr_name, range(max(1, num_lrs))))

    def _grid(self, hr: Pixels, small: Pixels, name: str, sample: dict[str, Any], where: str) -> PatchGrid:
        described = parse_description(sample.get("json", b""), f"{where}: json")
        scale, method = described["scale"], described["method"]
        size, patch = len(hr), self.patch_size
        edge = size // scale if name != "up" and scale > 0 else size
        if scale < 1 or hr.shape != (size, size, 3) or small.shape != (edge, edge, 3):
            raise RunError(f"{where}: sizes of HR {hr.shape} and {name} {small.shape} do not match at {scale}x")
        if patch % scale or patch > size:
            raise ArgumentError(
                f"`patch_size` {patch}: expected a multiple of the scale {scale}, at most the HR size {size} ({where})"
            )
        num_symmetries = NUM_SYMMETRIES if self.augment else 1
        if self.input == "lr" or name == "up":
            return PatchGrid(size, scale, patch, size // edge, num_symmetries)
        if method not in UPSAMPLING_METHODS:
            raise RunError(f"{where} has no up image, which cannot be computed by the unknown method {method!r:.40}")
        return PatchGrid(size, scale, patch, 1, num_symmetries, method)


def _image(sample: dict[str, Any], name: str, where: str) -> Pixels:
    extension = next((extension for extension in sample if extension.partition(".")[0] == name), None)
    if extension is None:
        raise RunError(f"{where} has no {name} image")
    try:
        return codec.decode(extension.rpartition(".")[2], sample[extension])
    except RunError as error:
        raise RunError(f"{where}: {extension} {error}") from error


@dataclass(frozen=True)
class _Shuffle:
    """Shuffles within a buffer, in a different order for each epoch, rank and worker."""

    size: int
    seed: int
    epoch: SharedEpoch
    ranks: Ranks

    def __call__(self, pairs: Iterator[PatchPair]) -> Iterator[PatchPair]:
        random = Random(f"{self.seed} {int(self.epoch)} {self.ranks.rank} {_worker()[0]}")
        shuffled_pairs: Iterator[PatchPair] = wds.shuffle(self.size, rng=random)(pairs)
        return shuffled_pairs
