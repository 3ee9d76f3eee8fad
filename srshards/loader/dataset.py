"""Patches by number, as a dataset for PyTorch's own `DataLoader`."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from srshards.loader.arguments import MAX_SEED, patch_grid, whole
from srshards.loader.patch_pair import PatchPair
from srshards.loader.shared_epoch import SharedEpoch
from srshards.sampling.patches import Cut
from srshards.sampling.schedule import BatchSamples
from srshards.shards.folder import Shards, in_range
from srshards.shards.mapped import reading


class PatchDataset(Dataset[PatchPair]):
    """A map-style dataset: item n is a patch of the n-th sample of a split, as a `PatchPair` of uint8 arrays.

    Crop, flips and turns, and which of several LR images is shown, follow from (seed, epoch, n), as in `PatchLoader`:
    the same for any number of workers, in any order. Call `set_epoch` before each epoch; otherwise all epochs show the
    same patches. It can be pickled, and maps shards in each worker when they are first read, so it works with `fork`,
    `spawn` and `forkserver`, with `persistent_workers`, and with torchdata's `StatefulDataLoader`.

    Args:
        shards: what `srshards.open` gave.
        patch_size: edge of the HR patches in px: divisible by the scale, at most `shards.hr_size`.
        input: `"lr"`, or `"up"` for the image that was enlarged again to HR's size.
        split: `"train"` or `"val"`.
        seed: draws crops, flips and variants, 0 to 2^63 - 1.
        augment: whether patches are flipped and turned by multiples of 90 degrees.
        transform: gets each item and gives what takes its place, in the process that reads.

    Raises:
        srshards.ArgumentError: a ValueError that names the argument and says what to give instead.
        IndexError: an item that there is not.
        srshards.RunError: an item whose images are damaged, or whose shard is gone.

    >>> data = PatchDataset(shards, patch_size=16)
    >>> len(data), data[0].hr.shape, data[0].input.shape, data[0].hr.dtype
    (39, (16, 16, 3), (8, 8, 3), dtype('uint8'))
    >>> from torch.utils.data import DataLoader
    >>> batch = next(iter(DataLoader(data, batch_size=4, shuffle=True)))
    >>> batch.hr.shape, batch.input.dtype
    (torch.Size([4, 16, 16, 3]), torch.uint8)
    """

    def __init__(
        self,
        shards: Shards,
        patch_size: int,
        *,
        input: Literal["lr", "up"] = "lr",
        split: Literal["train", "val"] = "train",
        seed: int = 0,
        augment: bool = True,
        transform: Callable[[PatchPair], PatchPair] | None = None,
    ) -> None:
        seed = whole("seed", seed, 0, MAX_SEED)
        self._grid = patch_grid(shards, patch_size, input, augment, split)
        self._samples = shards.split(split)
        self._shards = shards
        self._inputs = shards.inputs(input) if split == "train" else shards.inputs(input)[:1]
        self._seed = seed
        self._transform = transform
        self._epoch = SharedEpoch()

    def __len__(self) -> int:
        """Samples of the split."""
        return len(self._samples)

    def __getitem__(self, index: int) -> PatchPair:
        return self.__getitems__([index])[0]

    def __getitems__(self, indexes: Sequence[int]) -> list[PatchPair]:
        """The items of a batch, whose crops are drawn at once. PyTorch's loader asks for them in this way."""
        what = f"{self._samples.name} samples in {self._shards.path}"
        numbers = np.array([in_range(index, len(self), what) for index in indexes], np.int64)
        draws = BatchSamples(np.full_like(numbers, self.epoch), numbers)
        variants = draws.variants(self._seed, len(self._inputs)).tolist()
        cuts = self._grid.cuts(self._seed, draws)
        return list(map(self._pair, numbers.tolist(), variants, cuts))

    @property
    def epoch(self) -> int:
        """The number of the epoch whose patches are shown."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Show the patches of this epoch, 0 or more, in all processes. To be called before an epoch's iteration."""
        self._epoch.set(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The epoch, for torchdata's `StatefulDataLoader`: all else follows from the arguments."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the epoch of a `state_dict`. ValueError for any other dict."""
        if set(state) != {"epoch"}:
            raise ValueError(f"expected the state of a PatchDataset, as {{'epoch': 3}}, found {state!r:.100}")
        self.set_epoch(state["epoch"])

    def _pair(self, number: int, variant: int, cut: Cut) -> PatchPair:
        shards, grid = self._shards, self._grid
        record, place = self._samples.locate(number)
        with reading(shards.origin):
            shard = shards.mapped(record)
            hr = shard.image(place, "hr", shards.codec, grid.hr)
            small = shard.image(place, self._inputs[variant], shards.codec, grid.hr // grid.input_scale)
        pair = PatchPair(*(np.empty((edge, edge, 3), np.uint8) for edge in (grid.patch, grid.input_patch)))
        grid.cut(hr, small, cut, *pair)
        return self._transform(pair) if self._transform else pair
