"""The batches of some steps, cut from the mapped shards: the same bytes whoever asks."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from srshards.format import Address
from srshards.imaging.pixels import Pixels
from srshards.sampling.patches import Cut, PatchGrid
from srshards.sampling.schedule import BatchSamples, Schedule
from srshards.shards.mapped import DamagedMember, MappedShard, Origin

# Maps cost address space and an open index; a block has about eight shards of the usual size. A view costs 1 KB.
_MAX_OPEN_SHARDS = 64
_MAX_VIEWS = 20_000
_MAX_REPLACEMENTS = 100
_LOOKED_AT = 8  # one crop of so many is looked for in memory,
_COLD_FOR = 64  # and when it is not there, so many chunks are read ahead

OpenShard = Callable[[Path, int, bool], MappedShard]  # MappedShard itself, or what takes its arguments


class DamagedSample(NamedTuple):
    """A training sample that could not be used, and why; the next sound one by number took its place.

    >>> damaged = DamagedSample(7, "train-000000.tar: 000000000007.hr.npy: expected 64x64x3 px, found other bytes")
    >>> damaged.number
    7
    """

    number: int
    reason: str


class DamagedRow(NamedTuple):
    """Where a batch had to do without a sample: the step, counted from the first that was read, and the row."""

    step: int
    row: int
    damage: DamagedSample


class Patches(NamedTuple):
    """S x N x p x p x 3 uint8 RGB HR patches of N rows of S steps, and the S x N x q x q x 3 input patches of them."""

    hr: Pixels
    input: Pixels


class PatchSpec(NamedTuple):
    """What a row of a batch is: a sample's number, which of its inputs is shown, and the place to cut."""

    number: int
    variant: int
    cut: Cut


class BatchReader:
    """Cuts batches. One per worker; holds the shards mapped that it used last.

    `input_names` are the variants of the image that the network sees: `lr`, `lr1`, ..., or only `up`. `cached` opens
    shards from a cache, which may remove what nobody has mapped: then those that are not needed soon are let go of.
    `origin` is where the set lies, for messages.
    """

    def __init__(
        self,
        shards: Sequence[tuple[Path, int]],
        codec: str,
        schedule: Schedule,
        grid: PatchGrid,
        input_names: tuple[str, ...],
        seed: int,
        cached: OpenShard | None = None,
        origin: "Origin | Address | None" = None,
    ) -> None:
        self.schedule = schedule
        self.grid = grid
        self._shards = shards  # of the training split: the tar, and its number of samples
        self.codec = codec
        self.input_names = input_names
        self._seed = seed
        self._cached = cached
        self.origin = origin or shards[0][0].parent
        self._open: OrderedDict[int, MappedShard] = OrderedDict()
        # Of samples in open `npy` shards that were found sound: by variant, then by number.
        self._views: list[dict[int, tuple[Pixels, Pixels]]] = [{} for _ in input_names]
        self._of_last: tuple[int, dict[str, Pixels]] = (-1, {})  # the images of the sample that was looked at last
        self._cold_for = _COLD_FOR

    def __getstate__(self) -> dict[str, Any]:
        # Maps do not travel to other processes.
        views: list[Any] = [{} for _ in self.input_names]
        return {**self.__dict__, "_open": OrderedDict(), "_views": views, "_of_last": (-1, {})}

    def lay_out(self, memory: Pixels, steps: int, rows: int) -> Patches:
        """HR and input patches side by side in a piece of memory of the grid's `bytes_per_row` for each row."""
        patch, small = self.grid.patch, self.grid.input_patch
        middle, end = 3 * steps * rows * patch**2, steps * rows * self.grid.bytes_per_row
        hr = memory[:middle].reshape(steps, rows, patch, patch, 3)
        return Patches(hr, memory[middle:end].reshape(steps, rows, small, small, 3))

    def read(self, steps: range, rows: range, to: Patches, next_steps: range = range(0)) -> tuple[DamagedRow, ...]:
        """Write these rows of the global batches of these steps into `to`. `next_steps` are likely to be read next.

        A damaged sample is named, and the next sound one by number stands in its place, so that the batch keeps its
        shape, whoever reads which rows of it. DamagedMember when a hundred in a row are damaged; FormatError or OSError
        when a shard cannot be opened.
        """
        if self._cached and steps:
            self._keep(self._of_blocks(steps))
        crops = self.crops(steps, rows)
        if self._is_cold(crops):
            for crop in chain(*crops):
                self._read_ahead(crop)
            for crop in chain(*self.crops(next_steps, rows)):
                # A cache has no room set aside for shards beyond those of these steps.
                if not self._cached or self.schedule.shard_of(crop.number)[0] in self._open:
                    self._read_ahead(crop)
        damaged: list[DamagedRow] = []
        # Row by row through the steps: where these have the same sample, it is decoded once.
        for row, of_steps in enumerate(zip(*crops, strict=True)):
            last = last_variant = -1
            for step, (number, variant, cut) in enumerate(of_steps):
                if number != last or variant != last_variant:
                    found: list[DamagedSample] = []
                    hr, small = self._views[variant].get(number) or self.sound_images(number, variant, found)
                    damaged += [DamagedRow(step, row, damage) for damage in found]
                    last, last_variant = number, variant
                self.grid.cut(hr, small, cut, to.hr[step, row], to.input[step, row])
        return tuple(damaged)

    def crops(self, steps: range, rows: range) -> list[list[PatchSpec]]:
        """What these rows of the global batch of each step are."""
        if not steps:
            return []
        epochs, numbers = zip(*(self.schedule.batch(step, rows.start, rows.stop) for step in steps), strict=True)
        draws = BatchSamples(np.concatenate(epochs), np.concatenate(numbers))
        variants = draws.variants(self._seed, len(self.input_names))
        crops = list(map(PatchSpec, draws.numbers.tolist(), variants.tolist(), self.grid.cuts(self._seed, draws)))
        return [crops[first : first + len(rows)] for first in range(0, len(crops), len(rows))]

    def sound_images(self, number: int, variant: int, damaged: list[DamagedSample]) -> tuple[Pixels, Pixels]:
        """HR image and a variant of the input image of a sample, or of the next sample where these two are sound.

        Those that are passed over are added to `damaged`.
        """
        for offset in range(_MAX_REPLACEMENTS):
            candidate = (number + offset) % self.schedule.num_samples
            try:
                images = self._images(candidate, variant)
            except DamagedMember as error:
                damaged.append(DamagedSample(candidate, str(error)))
                continue
            if offset == 0 and self.codec == "npy" and sum(map(len, self._views)) < _MAX_VIEWS:
                self._views[variant][number] = images
            return images
        raise DamagedMember(f"{_MAX_REPLACEMENTS} samples in a row are damaged, e.g. {damaged[-1].reason}")

    def read_images_ahead(self, numbers: range) -> None:
        """Let the system begin to read all of these samples' images."""
        if self._cached:
            self._keep({self.schedule.shard_of(number)[0] for number in numbers})
        for number in numbers:
            shard, place = self.schedule.shard_of(number)
            for name in ("hr", *self.input_names):
                self._shard(shard).read_ahead(place, name, self.codec, 0.0, 1.0)

    def close(self) -> None:
        """Let go of all shards; they are opened again when they are needed."""
        self._open.clear()
        self._forget()

    def _of_blocks(self, steps: range) -> set[int]:
        """The shards of all blocks that these steps have samples of."""
        blocks = takewhile(lambda found: found[0] <= steps[-1], self.schedule.blocks_from(steps[0]))
        return {int(shard) for _, shards in blocks for shard in shards}

    def _keep(self, wanted: set[int]) -> None:
        """Let go of all shards but these."""
        unwanted = self._open.keys() - wanted
        if unwanted:
            for shard in unwanted:
                del self._open[shard]
            self._forget()

    def _forget(self) -> None:
        """The views into shards, which keep these open."""
        for views in self._views:
            views.clear()
        self._of_last = (-1, {})

    def _images(self, number: int, variant: int) -> tuple[Pixels, Pixels]:
        shard, place = self.schedule.shard_of(number)
        images, grid = self._shard(shard), self.grid
        if number != self._of_last[0]:
            self._of_last = (number, {})
        known = self._of_last[1]  # while it is the same sample, variant after variant, nothing is decoded twice
        input_name = self.input_names[variant]
        for name, size in (("hr", grid.hr), (input_name, grid.hr // grid.input_scale)):
            if name not in known:
                known[name] = images.image(place, name, self.codec, size)
        return known["hr"], known[input_name]

    def _is_cold(self, crops: list[list[PatchSpec]]) -> bool:
        """Whether the disk is needed, now or lately: some crops of a chunk are looked at.

        To ask for all of them to be read ahead would cost a third of the time of copying them, where they are in memory
        already.
        """
        self._cold_for = max(0, self._cold_for - 1)
        for number, variant, cut in islice(chain(*crops), None, None, _LOOKED_AT):
            number_of_shard, place = self.schedule.shard_of(number)
            shard, height = self._shard(number_of_shard), self.grid.height_of(cut)
            there = shard.in_memory(place, "hr", self.codec, *height)
            if there and len(self.input_names) > 1:  # one alone was read whenever HR was
                there = shard.in_memory(place, self.input_names[variant], self.codec, *height)
            if not there:
                self._cold_for = _COLD_FOR
                break
        return self._cold_for > 0

    def _read_ahead(self, crop: PatchSpec) -> None:
        shard, place = self.schedule.shard_of(crop.number)
        for name in ("hr", self.input_names[crop.variant]):
            self._shard(shard).read_ahead(place, name, self.codec, *self.grid.height_of(crop.cut))

    def _shard(self, index: int) -> MappedShard:
        if index in self._open:
            self._open.move_to_end(index)
        else:
            self._open[index] = (self._cached or MappedShard)(*self._shards[index], True)
            if len(self._open) > _MAX_OPEN_SHARDS:
                self._open.popitem(last=False)
                self._forget()
        return self._open[index]
