"""One sample: the HR image, the images derived from it, and their metadata."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from srshards.format import ShardRecord, lr_name, sample_key
from srshards.imaging.pixels import Pixels
from srshards.imaging.upsampling import upsample
from srshards.shards.description import parse_description
from srshards.shards.mapped import reading

if TYPE_CHECKING:
    from srshards.shards.folder import Shards


class Sample:
    """One sample of `Shards`. Images are read, and decoded if necessary, on first access.

    Images are H x W x 3 uint8 RGB arrays, top row first. With codec `npy` they are read-only views into the mapped
    shard, without a copy (`sample.hr.copy()` returns a writable array); other images are decoded once per
    `Sample`. A sample can be pickled; images already read are not included.

    Accessing a damaged image or a missing shard raises RunError; its message says how to repair the shard.

    Examples:
        >>> sample = shards[0]
        >>> sample.key, sample.hr.shape, sample.lr.shape, sample.up.shape
        ('000000000000', (64, 64, 3), (32, 32, 3), (64, 64, 3))
        >>> sample.hr.dtype, sample.hr.flags.writeable
        (dtype('uint8'), False)
        >>> sample.meta["class"], sample.meta["scale"]
        ('class1', 2)
    """

    def __init__(self, shards: Shards, record: ShardRecord, position: int) -> None:
        self._shards = shards
        self._record = record
        self._position = position

    @property
    def key(self) -> str:
        """The key of the sample: twelve digits, unique in the folder, and the base name of its members in the tar."""
        return sample_key(self.split, int(self._record.name[-6:]), self._position)

    @property
    def split(self) -> str:
        """The split of the sample: `train` or `val`."""
        return self._record.split

    @cached_property
    def hr(self) -> Pixels:
        """The HR image, `hr_size` x `hr_size` x 3."""
        return self._image("hr")

    @property
    def lr(self) -> Pixels:
        """The LR image, `hr_size / scale` px wide and high; the first variant if there are several."""
        return self.lr_variants[0]

    @cached_property
    def lr_variants(self) -> tuple[Pixels, ...]:
        """All LR images, one per variant of the degradation; a validation sample has one."""
        count = self._shards.variants if self.split == "train" else 1
        return tuple(map(self._image, map(lr_name, range(count))))

    @cached_property
    def up(self) -> Pixels:
        """The first LR image, upsampled to the HR size: as stored or, in shards without `up`, computed on first access.

        ArgumentError when it is not stored and the manifest does not name the method.
        """
        method = self._shards.up_method
        return upsample(self.lr, self._shards.scale, method) if method else self._image("up")

    @cached_property
    def meta(self) -> dict[str, Any]:
        """The metadata of the sample: its `json` member, as docs/reference/formats.md describes it.

        `source` (the photo's path), `class` (its folder), `box` ([x, y, w, h] in px of the photo), `scale`, `method`,
        `psnr_up_db`; with a recipe also `degradation`, the steps and sampled parameters of each LR image.
        """
        shards, record = self._shards, self._record
        with reading(shards.origin):
            data = shards.mapped(record).json(self._position)
        return parse_description(data, f"{shards.path / record.name}.tar: {self.key}.json")

    def __repr__(self) -> str:
        return f"<Sample {self.key} of {self._shards.path}>"

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("_shards", "_record", "_position")}

    def _image(self, name: str) -> Pixels:
        shards = self._shards
        size = shards.hr_size // shards.scale if name.startswith("lr") else shards.hr_size
        with reading(shards.origin):
            return shards.mapped(self._record).image(self._position, name, shards.codec, size)
