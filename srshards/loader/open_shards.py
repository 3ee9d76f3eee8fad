"""The shards that a reader has mapped: those that were used last."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from srshards.loader.mapped_images import ImageKind, MappedImages
from srshards.shards.mapped import MappedShard

# Each takes two descriptors, address space and an index; a block has about eight shards of the usual size.
_MAX_OPEN = 64

OpenShard = Callable[[Path, int, bool], MappedShard]  # MappedShard, or a function with the same first arguments


class OpenShards:
    """Maps shards when they are needed, by their position in `shards`: tar and number of samples.

    What is returned stays mapped as long as it is referenced. Pickled and copied without the mappings. FormatError or
    OSError when a shard cannot be opened.
    """

    def __init__(self, shards: Sequence[tuple[Path, int]], kinds: Sequence[ImageKind], open_shard: OpenShard) -> None:
        self._shards = shards
        self._kinds = kinds
        self._open_shard = open_shard
        self._reset()

    def _reset(self) -> None:
        self._open: OrderedDict[int, MappedShard] = OrderedDict()
        self._images: dict[int, MappedImages] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("_shards", "_kinds", "_open_shard")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __contains__(self, index: int) -> bool:
        return index in self._open

    def shard(self, index: int) -> MappedShard:
        if index not in self._open:
            self._open[index] = self._open_shard(*self._shards[index], True)
            if len(self._open) > _MAX_OPEN:
                self._remove(next(iter(self._open)))
        self._open.move_to_end(index)
        return self._open[index]

    def images(self, index: int) -> MappedImages:
        """Return where the images of a shard are, for the compiled core."""
        shard = self.shard(index)
        if index not in self._images:
            self._images[index] = MappedImages(shard, self._kinds)
        return self._images[index]

    def keep(self, wanted: set[int]) -> bool:
        """Unmap all shards but the wanted ones, and return whether there were others."""
        unwanted = self._open.keys() - wanted
        for index in unwanted:
            self._remove(index)
        return bool(unwanted)

    def _remove(self, index: int) -> None:
        del self._open[index]
        self._images.pop(index, None)
