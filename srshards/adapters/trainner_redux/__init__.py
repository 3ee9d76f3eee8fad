"""Shards in traiNNer-redux: registers `ShardsDataset`. `python -m srshards.adapters.trainner_redux` trains."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

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
    """The dataset of `type: ShardsDataset`: see `PairDataset`. `opt` are the options of a dataset of traiNNer-redux.

    Where traiNNer-redux saves images of a validation, it copies the file of LR. So that of a validation item exists, in
    a temporary folder.
    """

    def __init__(self, opt: Any) -> None:
        BaseDataset.__init__(self, opt)
        PairDataset.__init__(self, {name: getattr(opt, name) for name in opt.__struct_fields__}, _NAMES)
        if self.train is None:
            self._files = TemporaryDirectory(prefix="srshards-validation-")
            opt.dataroot_lq = [self._files.name]  # the names of saved images are relative to it

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the pair of a sample. IndexError when the index is out of range."""
        item = super().__getitem__(index)
        if self.train is None:
            path = Path(self._files.name, Path(item["lq_path"]).name)
            if not path.exists():
                Image.fromarray((item["lq"] * 255).round().byte().permute(1, 2, 0).numpy()).save(path)
            item["lq_path"] = str(path)
        return item
