"""Patches as a map-style dataset for PyTorch's `DataLoader`."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from srshards.loader.arguments import MAX_SEED, checked_int, patch_grid
from srshards.loader.patch_pair import PatchPair
from srshards.loader.shared_epoch import SharedEpoch
from srshards.sampling.patches import Cut
from srshards.sampling.schedule import BatchSamples
from srshards.shards.folder import Shards, normalized_index
from srshards.shards.mapped import reading


class PatchDataset(Dataset[PatchPair]):
    """A map-style dataset: item n is a patch of the n-th sample of a split, as a `PatchPair` of uint8 arrays.

    Crop, flip, rotation and LR variant are determined by (seed, epoch, n), as in `PatchLoader`: they do not depend on
    the number of workers or the order of access. Call `set_epoch` before each epoch; otherwise all epochs have the same
    patches. The dataset can be pickled, and each worker maps shards when it first reads them, so it works with `fork`,
    `spawn` and `forkserver`, with `persistent_workers`, and with torchdata's `StatefulDataLoader`.

    Args:
        shards: the shards, from `srshards.open`.
        patch_size: edge length of the HR patches in px: divisible by the scale, at most `shards.hr_size`.
        input: `"lr"`, or `"up"` for the upsampled image, which has the size of HR. It is computed from LR if the shards
            do not have it.
        split: `"train"` or `"val"`.
        seed: seed of crops, flips and variants, 0 to 2^63 - 1.
        augment: whether to flip patches and rotate them by multiples of 90 degrees.
        transform: called with each item, in the process that reads it; its result replaces the item.

    Raises:
        srshards.ArgumentError: a ValueError that names the argument and says what to pass instead.
        IndexError: an item index is out of range.
        srshards.RunError: an image of the item is damaged, or its shard is missing.

    Examples:
        >>> dataset = PatchDataset(shards, patch_size=16)
        >>> len(dataset), dataset[0].hr.shape, dataset[0].input.shape, dataset[0].hr.dtype
        (39, (16, 16, 3), (8, 8, 3), dtype('uint8'))
        >>> from torch.utils.data import DataLoader
        >>> batch = next(iter(DataLoader(dataset, batch_size=4, shuffle=True)))
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
        seed = checked_int("seed", seed, 0, MAX_SEED)
        self._grid = patch_grid(shards, patch_size, input, augment, split)
        self._samples = shards.split(split)
        self._shards = shards
        self._inputs = shards.inputs(input) if split == "train" else shards.inputs(input)[:1]
        self._seed = seed
        self._transform = transform
        self._epoch = SharedEpoch()

    def __len__(self) -> int:
        """Number of samples in the split."""
        return len(self._samples)

    def __getitem__(self, index: int) -> PatchPair:
        return self.__getitems__([index])[0]

    def __getitems__(self, indexes: Sequence[int]) -> list[PatchPair]:
        """Return the items of a batch. PyTorch's `DataLoader` calls this: choosing all crops at once is faster."""
        return self._at_epoch(indexes, self.epoch)

    def at_epoch(self, index: int, epoch: int) -> PatchPair:
        """Return an item as it is in an epoch, 0 to 2^63 - 1, whatever epoch is set."""
        return self._at_epoch([index], checked_int("epoch", epoch, 0, MAX_SEED))[0]

    def _at_epoch(self, indexes: Sequence[int], epoch: int) -> list[PatchPair]:
        what = f"{self._samples.name} samples in {self._shards.path}"
        numbers = np.array([normalized_index(index, len(self), what) for index in indexes], np.int64)
        samples = BatchSamples(np.full_like(numbers, epoch), numbers)
        variants = samples.variants(self._seed, len(self._inputs)).tolist()
        cuts = self._grid.cuts(self._seed, samples)
        return list(map(self._pair, numbers.tolist(), variants, cuts))

    @property
    def epoch(self) -> int:
        """The current epoch, which determines the patches."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, 0 or more, in all processes. Call it before iterating over an epoch."""
        self._epoch.set(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, for torchdata's `StatefulDataLoader`: the arguments determine everything else."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the epoch from a `state_dict`. ValueError for any other dict."""
        if set(state) != {"epoch"}:
            raise ValueError(f"expected the state of a PatchDataset, e.g. {{'epoch': 3}}, found {state!r:.100}")
        self.set_epoch(state["epoch"])

    def _pair(self, number: int, variant: int, cut: Cut) -> PatchPair:
        shards, grid = self._shards, self._grid
        record, position = self._samples.locate(number)
        with reading(shards.origin):
            shard = shards.mapped(record)
            hr = shard.image(position, "hr", shards.codec, grid.hr)
            network_input = shard.image(position, self._inputs[variant], shards.codec, grid.stored_input)
        pair = PatchPair(*(np.empty((edge, edge, 3), np.uint8) for edge in (grid.patch, grid.input_patch)))
        grid.cut(hr, network_input, cut, *pair)
        return self._transform(pair) if self._transform else pair
