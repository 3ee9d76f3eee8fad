"""The map-style dataset that the frameworks' own data loaders read."""

import random
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from srshards.adapters.options import OptionNames, TrainOptions, input_of, open_folder, train_options
from srshards.errors import ArgumentError
from srshards.imaging.pixels import Pixels
from srshards.loader.dataset import PatchDataset
from srshards.shards.sample import Sample

_EPOCH_BITS = 62  # epochs are below 2^63


class PairDataset(Dataset[dict[str, Any]]):
    """Pairs of a framework's training or validation set: dicts of `lq`, `gt`, `lq_path` and `gt_path`.

    `lq` and `gt` are float32 RGB tensors in [0, 1], 3 x H x W: for training a random patch of a training sample, and
    otherwise a validation sample as it is stored. The paths name the sample; they are not those of files.

    Crop, flips, rotation and LR variant of a patch are drawn with Python's `random`, which the frameworks seed in each
    worker, as they do for their own datasets. So patches depend on the number of workers.

    `options` are those of the framework's dataset, `names` what it calls them. ArgumentError for an invalid option,
    UsageError for shards that do not match their manifest; reading raises RunError for a damaged image.
    """

    def __init__(self, options: Mapping[str, Any], names: OptionNames) -> None:
        self.names = names
        self.train: TrainOptions | None = None
        with names.in_errors():
            self.shards = open_folder(options)
        self.input = input_of(options, self.shards)
        if options["phase"] == "train":
            self.train = train_options(options, names)
            with names.in_errors():
                self._patches = PatchDataset(
                    self.shards, self.train.patch_size, input=self.input, augment=self.train.augment
                )
        elif not self.shards.val:
            raise ArgumentError(
                f"{self.shards.path} has no validation samples; make the shards again with a --val-fraction or --val"
            )

    def __len__(self) -> int:
        """Number of samples in the training or validation split."""
        return len(self.shards.train if self.train else self.shards.val)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the pair of a sample. IndexError when the index is out of range."""
        if self.train:
            hr, network_input = self._patches.at_epoch(index, random.getrandbits(_EPOCH_BITS))
            name = self.shards.train[index].key
        else:
            sample = self.shards.val[index]
            hr, network_input = sample.hr, sample.lr if self.input == "lr" else sample.up
            name = _photo_and_key(sample)
        path = f"{self.shards.path}/{name}.png"
        return {"lq": _to_tensor(network_input), "gt": _to_tensor(hr), "lq_path": path, "gt_path": path}


def _photo_and_key(sample: Sample) -> str:
    """Return a name for the images that frameworks save of a validation sample: its photo's, made unique by its key."""
    return f"{PurePath(sample.meta['source']).stem}_{sample.key}"


def _to_tensor(image: Pixels) -> torch.Tensor:
    """Convert H x W x 3 uint8 to 3 x H x W float32 in [0, 1], on the CPU, whatever the default device is."""
    return torch.from_numpy(np.divide(image.transpose(2, 0, 1), 255, dtype=np.float32, order="C"))
