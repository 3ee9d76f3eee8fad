"""One sample of a set: the HR image, the LR images made of it, and where they come from."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from srshards.format import ShardRecord, lr_name, sample_key
from srshards.imaging.pixels import Pixels
from srshards.shards.description import parse_description
from srshards.shards.mapped import reading

if TYPE_CHECKING:
    from srshards.shards.folder import Shards


class Sample:
    """A sample of a set of shards. Its images are read, and decoded if need be, when they are first asked for.

    Images are H x W x 3 uint8 RGB arrays with levels 0-255, top row first. Those of codec `npy` are read-only views
    into the mapped shard, so nothing is copied (`sample.hr.copy()` gives an array of your own); `png` and `webp` images
    are decoded once for each `Sample`. A sample can be pickled: what was read stays behind.

    Reading raises RunError, with the way to mend it, for a damaged image or a shard that is no longer there.

    >>> sample = shards[0]
    >>> sample.key, sample.hr.shape, sample.lr.shape, sample.up.shape
    ('000000000000', (64, 64, 3), (32, 32, 3), (64, 64, 3))
    >>> sample.hr.dtype, sample.hr.flags.writeable
    (dtype('uint8'), False)
    >>> sample.meta["class"], sample.meta["scale"]
    ('class1', 2)
    """

    def __init__(self, shards: Shards, record: ShardRecord, place: int) -> None:
        self._shards = shards
        self._record = record
        self._place = place

    @property
    def key(self) -> str:
        """Twelve digits, unique in the set: the name of the sample's members in the tar."""
        return sample_key(self.split, int(self._record.name[-6:]), self._place)

    @property
    def split(self) -> str:
        """`train` or `val`."""
        return self._record.split

    @cached_property
    def hr(self) -> Pixels:
        """The HR image, `hr_size` x `hr_size` x 3."""
        return self._image("hr")

    @property
    def lr(self) -> Pixels:
        """The LR image, `hr_size / scale` px wide and high: the first one, where there are several."""
        return self.lr_variants[0]

    @cached_property
    def lr_variants(self) -> tuple[Pixels, ...]:
        """All LR images: one for each variant of the degradation; of a validation sample always one."""
        count = self._shards.variants if self.split == "train" else 1
        return tuple(map(self._image, map(lr_name, range(count))))

    @cached_property
    def up(self) -> Pixels:
        """The first LR image, enlarged back to the size of HR. ArgumentError when the set has none (`--no-up`)."""
        self._shards.inputs("up")
        return self._image("up")

    @cached_property
    def meta(self) -> dict[str, Any]:
        """Where the sample comes from, as docs/formats.md describes its `json` member.

        `source` (the photo's path), `class` (its folder), `box` ([x, y, w, h] in px of the photo), `scale`, `method`,
        `psnr_up_db`; and `degradation`, for each LR image its steps with all that was drawn, for sets with a recipe.
        """
        shards, record = self._shards, self._record
        with reading(shards.origin):
            data = shards.mapped(record).json(self._place)
        return parse_description(data, f"{shards.path / record.name}.tar: {self.key}.json")

    def __repr__(self) -> str:
        return f"<Sample {self.key} of {self._shards.path}>"

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("_shards", "_record", "_place")}

    def _image(self, name: str) -> Pixels:
        shards = self._shards
        size = shards.hr_size // shards.scale if name.startswith("lr") else shards.hr_size
        with reading(shards.origin):
            return shards.mapped(self._record).image(self._place, name, shards.codec, size)
