"""Shards in traiNNer-redux: registers `ShardsDataset`. `python -m srshards.adapters.trainner_redux` trains."""

from typing import Any

from srshards.adapters.frameworks import framework

with framework("traiNNer-redux", "traiNNer", "run this in a clone of traiNNer-redux, after its install.sh"):
    from traiNNer.data.base_dataset import BaseDataset
    from traiNNer.data.paired_image_dataset import PairedImageDataset
    from traiNNer.utils.registry import DATASET_REGISTRY

from srshards.adapters.options import OptionNames
from srshards.adapters.pair_dataset import PairDataset

_NAMES = OptionNames(patch_size="gt_size", batch_size="batch_size_per_gpu", accumulate="accum_iter")


# traiNNer-redux computes metrics only for validation sets that are a PairedImageDataset.
@DATASET_REGISTRY.register()
class ShardsDataset(PairDataset, PairedImageDataset):  # type: ignore[misc]
    """The dataset of `type: ShardsDataset`: see `PairDataset`. `opt` are the options of a dataset of traiNNer-redux."""

    def __init__(self, opt: Any) -> None:
        BaseDataset.__init__(self, opt)
        PairDataset.__init__(self, {name: getattr(opt, name) for name in opt.__struct_fields__}, _NAMES)
        opt.dataroot_lq = [str(self.shards.path)]  # the root of `lq_path`, from which names of saved images are made
