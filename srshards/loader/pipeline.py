"""The same patches as a pipeline of the `webdataset` package, which streams the tars from wherever they lie."""

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
from srshards.loader.arguments import MAX_SEED, Ranks, patch_grid, ranks_of, whole
from srshards.loader.patch_pair import PatchPair
from srshards.loader.shared_epoch import SharedEpoch
from srshards.loader.tar_streams import stream_samples
from srshards.sampling.counter_rng import shuffled
from srshards.sampling.patches import NUM_TURNS, PatchGrid
from srshards.sampling.schedule import BatchSamples
from srshards.shards.description import parse_description
from srshards.shards.folder import Shards, check_input
from srshards.storage.store import parse_address

_SHARDS = 0  # keeps this permutation apart from others of the same seed


class PatchPipeline(wds.DataPipeline, wds.compat.FluidInterface):  # type: ignore[misc]  # which has no types
    """A `webdataset` pipeline of `PatchPair`s.

    `map`, `batched` and the like give another one; `with_epoch` and `repeat` change this one, and give it back.
    """

    def __init__(self, epoch: SharedEpoch, *stages: Callable[..., Iterator[Any]]) -> None:
        super().__init__(*stages)
        self._epoch = epoch

    def set_epoch(self, epoch: int) -> None:
        """Show the order and the patches of this epoch, 0 or more, in all processes, from the next iteration on."""
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
    """A `webdataset` pipeline of patches, one of each sample, for any `DataLoader` or `webdataset.WebLoader`.

    Tars are read from front to back and never copied to this machine, so it suits sets that lie far away; where shards
    can be mapped, `PatchLoader` and `PatchDataset` are faster. The shards are shuffled, dealt out to ranks and workers,
    and read one after the other; patches are cut as `PatchDataset` cuts them (from the seed, the epoch and the sample's
    key) and shuffled among `shuffle` patches of each worker, which holds them in memory. The same seed and epoch give
    the same patches, and with the same number of ranks and workers the same order. Call `set_epoch` before each epoch.
    Ranks get whole shards, so their numbers of patches differ: bound them with `.with_epoch(n)`.

    Args:
        shards: what `srshards.open` gave; or the addresses of tars, of any set whose members are named as in
            docs/formats.md: a list, or one text in which `{000000..000007}` stands for many. They may be paths,
            `s3://...` and other stores, `https://...`, and `pipe:` with a command that writes a tar, run by a shell.
        patch_size: edge of the HR patches in px: divisible by the scale, at most the size of HR.
        input: `"lr"`, or `"up"` for the image that was enlarged again to HR's size.
        split: `"train"` or `"val"`, of `Shards`.
        seed: draws order, crops, flips and variants, 0 to 2^63 - 1.
        shuffle: so many patches are shuffled at a time, and the order of shards; 0: all come in the set's order.
        augment: whether patches are flipped and turned by multiples of 90 degrees.
        transform: gets each item and gives what takes its place.
        rank, world_size: which of how many processes this is; by default what `torch.distributed` says when it is
            initialised, else one alone.

    Raises:
        srshards.ArgumentError: a ValueError that names the argument and says what to give instead.
        srshards.RunError, srshards.StoreError: while iterating, when a tar or an image in it cannot be read.

    >>> pipeline = webdataset(shards, patch_size=16)
    >>> pair = next(iter(pipeline))
    >>> pair.hr.shape, pair.input.shape
    ((16, 16, 3), (8, 8, 3))
    >>> from torch.utils.data import DataLoader
    >>> sum(len(batch.hr) for batch in DataLoader(pipeline, batch_size=4))
    39
    """
    seed, shuffle = whole("seed", seed, 0, MAX_SEED), whole("shuffle", shuffle, 0)
    patch_size = whole("patch_size", patch_size, 1)
    ranks = ranks_of(rank, world_size, None, None)
    if isinstance(shards, Shards):
        patch_grid(shards, patch_size, input, augment, split)
        tars = _tars(shards, split)
    else:
        check_input(input)
        tars = _urls(shards)
    if len(tars) < ranks.world_size:
        raise ArgumentError(f"`world_size` {ranks.world_size}: there are {len(tars)} shards, less than one for each")
    epoch = SharedEpoch()
    pipeline = PatchPipeline(
        epoch,
        _Tars(tars, seed, epoch, ranks, bool(shuffle)),
        _Reader(input),
        _Cutter(patch_size, input, augment, seed, epoch),
    )
    if shuffle:
        pipeline.append(_Shuffle(shuffle, seed, epoch, ranks))
    if transform:
        pipeline.append(wds.map(transform))
    return pipeline


@dataclass(frozen=True)
class _Tar:
    """Where a shard lies; and how many samples it has, if that is known."""

    url: str
    samples: int | None = None


def _tars(shards: Shards, split: str) -> list[_Tar]:
    return [_Tar(str(shards.path / f"{record.name}.tar"), record.samples) for record in shards.split(split).records]


def _urls(shards: str | Sequence[str | Path]) -> list[_Tar]:
    if isinstance(shards, str):
        shards = wds.shardlists.expand_urls(shards)
    if not isinstance(shards, list | tuple) or not shards or not all(isinstance(url, str | Path) for url in shards):
        raise ArgumentError(f"`shards` {shards!r:.100}: expected what srshards.open gives, or addresses of tars")
    urls = list(map(str, shards))
    for url in urls:
        if "://" not in url and not url.startswith("pipe:") and parse_address(url).is_dir():
            raise ArgumentError(f"`shards` {url}: that is a folder; open it with srshards.open, or name its tars")
    return [_Tar(url) for url in urls]


def _worker() -> tuple[int, int]:
    """Which of how many workers of a `DataLoader` this process is."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


@dataclass(frozen=True)
class _Tars:
    """The tars of this rank and worker. Ranks are those of the process that made the pipeline: workers know of none."""

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
    """Reads what is needed of each sample: HR, all variants of the input, and the description."""

    input: str

    def __call__(self, tars: Iterable[_Tar]) -> Iterator[dict[str, Any]]:
        for tar in tars:
            yield from stream_samples(tar.url, tar.samples, self._is_wanted)

    def _is_wanted(self, file_name: str) -> bool:
        name = file_name.partition(".")[2].partition(".")[0]
        return name in ("hr", "json") or name.rstrip("0123456789") == self.input


@dataclass(frozen=True)
class _Cutter:
    """Decodes the two images of a pair and cuts their patches."""

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
        draws = BatchSamples(np.array([int(self.epoch)]), np.array([int(key)]))
        (variant,) = draws.variants(self.seed, self._num_variants(sample)).tolist()
        hr = _image(sample, "hr", where)
        small = _image(sample, lr_name(variant) if self.input == "lr" else "up", where)
        grid = self._grid(hr, small, sample, where)
        pair = PatchPair(*(np.empty((edge, edge, 3), np.uint8) for edge in (grid.patch, grid.input_patch)))
        grid.cut(hr, small, grid.cuts(self.seed, draws)[0], *pair)
        return pair

    def _num_variants(self, sample: dict[str, Any]) -> int:
        if self.input == "up":
            return 1
        return max(1, sum(name.startswith("lr") for name in sample))

    def _grid(self, hr: Pixels, small: Pixels, sample: dict[str, Any], where: str) -> PatchGrid:
        scale = parse_description(sample.get("json", b""), f"{where}: json")["scale"]
        size, patch = len(hr), self.patch_size
        edge = size // scale if self.input == "lr" and scale > 0 else size
        if scale < 1 or hr.shape != (size, size, 3) or small.shape != (edge, edge, 3):
            raise RunError(f"{where}: HR of {hr.shape} and {self.input} of {small.shape} do not match at {scale}x")
        if patch % scale or patch > size:
            raise ArgumentError(
                f"`patch_size` {patch}: expected a multiple of the scale {scale}, at most the {size} px of HR ({where})"
            )
        return PatchGrid(size, scale, patch, size // edge, NUM_TURNS if self.augment else 1)


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
    """Shuffles within a buffer, in an order of its own for each epoch, rank and worker."""

    size: int
    seed: int
    epoch: SharedEpoch
    ranks: Ranks

    def __call__(self, pairs: Iterator[PatchPair]) -> Iterator[PatchPair]:
        random = Random(f"{self.seed} {int(self.epoch)} {self.ranks.rank} {_worker()[0]}")
        shuffled_pairs: Iterator[PatchPair] = wds.shuffle(self.size, rng=random)(pairs)
        return shuffled_pairs
