"""The batch of a step, cut from the mapped shards: the same bytes whoever asks."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainer.pixels import Pixels
from trainer.stream.mapped_shard import DamagedMember, MappedShard
from trainer.stream.patches import Cut, PatchGrid
from trainer.stream.schedule import Schedule

# Maps cost address space and an open index, no memory of their own; a block has about eight shards of the usual size.
_MAX_OPEN_SHARDS = 64
_MAX_REPLACEMENTS = 100


class Damage(NamedTuple):
    """A sample that could not be used, and why; another sample of its batch took its place."""

    number: int
    reason: str


class StepBatch(NamedTuple):
    """N x p x p x 3 uint8 RGB HR patches, the N x q x q x 3 input patches that belong to them, and what was damaged."""

    hr: Pixels
    input: Pixels
    damaged: tuple[Damage, ...]


class BatchReader:
    """Cuts batches. One per worker; holds the shards mapped that it used last.

    `input_name` is `lr` or `up`.
    """

    def __init__(
        self,
        shards: Sequence[tuple[Path, int]],
        codec: str,
        schedule: Schedule,
        grid: PatchGrid,
        input_name: str,
        seed: int,
    ) -> None:
        self._shards = shards  # of the training split: the tar, and its number of samples
        self._codec = codec
        self._schedule = schedule
        self._grid = grid
        self._input_name = input_name
        self._seed = seed
        self._open: OrderedDict[int, MappedShard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}  # maps do not travel to other processes

    @property
    def folder(self) -> Path:
        return self._shards[0][0].parent

    def read(self, step: int, first: int, stop: int) -> StepBatch:
        """Rows first .. stop-1 of the global batch of a step.

        A damaged sample is named, and the next sound one by number stands in its place, so that the batch keeps its
        shape, whoever reads which rows of it. DamagedMember when a hundred in a row are damaged; FormatError or OSError
        when a shard cannot be opened.
        """
        draws = self._schedule.batch(step, first, stop)
        grid, rows = self._grid, stop - first
        hr = np.empty((rows, grid.patch, grid.patch, 3), np.uint8)
        small = np.empty((rows, grid.input_patch, grid.input_patch, 3), np.uint8)
        damaged: list[Damage] = []
        for row, (number, cut) in enumerate(zip(draws.numbers.tolist(), grid.cuts(self._seed, draws), strict=True)):
            self._cut_sound(number, cut, hr[row], small[row], damaged)
        return StepBatch(hr, small, tuple(damaged))

    def _cut_sound(self, number: int, cut: Cut, hr: Pixels, small: Pixels, damaged: list[Damage]) -> None:
        for offset in range(_MAX_REPLACEMENTS):
            candidate = (number + offset) % self._schedule.num_samples
            try:
                return self._cut(candidate, cut, hr, small)
            except DamagedMember as error:
                damaged.append(Damage(candidate, str(error)))
        raise DamagedMember(f"{_MAX_REPLACEMENTS} samples in a row are damaged, e.g. {damaged[-1].reason}")

    def _cut(self, number: int, cut: Cut, hr: Pixels, small: Pixels) -> None:
        shard, place = self._schedule.shard_of(number)
        images, grid = self._shard(shard), self._grid
        hr[:] = grid.cut_hr(images.image(place, "hr", self._codec, grid.hr), cut)
        size = grid.hr // grid.input_scale
        small[:] = grid.cut_input(images.image(place, self._input_name, self._codec, size), cut)

    def _shard(self, index: int) -> MappedShard:
        if index in self._open:
            self._open.move_to_end(index)
        else:
            self._open[index] = MappedShard(*self._shards[index])
            if len(self._open) > _MAX_OPEN_SHARDS:
                self._open.popitem(last=False)
        return self._open[index]
