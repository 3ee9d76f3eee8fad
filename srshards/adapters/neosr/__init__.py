"""Shards in neosr: registers the dataset `ShardsDataset`. `python -m srshards.adapters.neosr -opt FILE` trains."""

from typing import Any

from srshards.adapters.frameworks import framework

with framework("neosr", "neosr", "run this in a clone of neosr, after its install_linux.sh"):
    from neosr.utils.registry import DATASET_REGISTRY

from srshards.adapters.options import OptionNames
from srshards.adapters.pair_dataset import PairDataset

_NAMES = OptionNames(patch_size="patch_size", batch_size="batch_size", accumulate="accumulate", in_lr_px=True)


@DATASET_REGISTRY.register()
class ShardsDataset(PairDataset):
    """The dataset of `type = "ShardsDataset"`: see `PairDataset`. `opt` are the options of a dataset of neosr."""

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt, _NAMES)
        self.opt = opt
