"""Shards in BasicSR: registers the dataset `ShardsDataset`. `python -m srshards.adapters.basicsr -opt FILE` trains."""

from typing import Any

from srshards.adapters.frameworks import framework

with framework("BasicSR", "basicsr", "run `pip install basicsr`"):
    from basicsr.utils.registry import DATASET_REGISTRY

from srshards.adapters.options import OptionNames
from srshards.adapters.pair_dataset import PairDataset

_NAMES = OptionNames(patch_size="gt_size", batch_size="batch_size_per_gpu")


@DATASET_REGISTRY.register()
class ShardsDataset(PairDataset):
    """The dataset of `type: ShardsDataset`: see `PairDataset`. `opt` are the options of a dataset of BasicSR."""

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt, _NAMES)
        self.opt = opt
