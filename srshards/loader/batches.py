"""Cut batches from mapped shards. The result does not depend on the process that reads them."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from srshards import native
from srshards.format import CROP_CODECS
from srshards.imaging.pixels import Pixels
from srshards.loader.mapped_images import Bools, ImageKind, Int64s, MappedPatches
from srshards.loader.open_shards import OpenShard, OpenShards
from srshards.sampling.patches import Cut, PatchGrid
from srshards.sampling.schedule import Schedule
from srshards.shards.mapped import DamagedMember, MappedShard, Origin

_MAX_REPLACEMENTS = 100
_PROBE_EVERY = 32  # probe every n-th crop for presence in the page cache
_LR_AT_A_TIME = 16  # LR images that are copied to be upsampled
_COLD_CHUNKS = 64  # number of chunks to read ahead for after a miss


class DamagedSample(NamedTuple):
    """A training sample that could not be used, and the reason; the next intact sample by number replaced it.

    Attributes:
        number: number of the sample in the training split.
        reason: what is damaged, and where.

    Examples:
        >>> damaged = DamagedSample(7, "train-000000.tar: 000000000007.hr.npy: expected 64x64x3 px, found damaged data")
        >>> damaged.number
        7
    """

    number: int
    reason: str


class DamagedRow(NamedTuple):
    """A row with a replaced sample: the step, counted from the first one read, and the row in its batch."""

    step: int
    row: int
    damage: DamagedSample


class Patches(NamedTuple):
    """The uint8 RGB patches of S steps of N rows each: HR, S x N x p x p x 3, and input, S x N x q x q x 3."""

    hr: Pixels
    input: Pixels


class PatchSpec(NamedTuple):
    """Specification of one row of a batch: sample number, input variant and cut."""

    number: int
    variant: int
    cut: Cut


class DrawnCrops(NamedTuple):
    """Sample numbers and input variants of N crops, and their cuts: a 3 x N array with the fields of `Cut`."""

    numbers: npt.NDArray[np.int64]
    variants: npt.NDArray[np.int64]
    cuts: npt.NDArray[np.int64]

    def specs(self, every: int = 1) -> list[PatchSpec]:
        """Return the crops, or every so many of them, one by one."""
        numbers, variants, cuts = (values[..., ::every] for values in self)
        return list(map(PatchSpec, numbers.tolist(), variants.tolist(), map(Cut, *cuts.tolist())))


class BatchReader:
    """Cuts batches from shards. Each worker has one.

    `input_names` are the stored variants of the network input: `lr`, `lr1`, ..., or only `up`. `cached` opens shards
    through a cache, which cannot evict mapped shards: shards not needed soon are then unmapped. `origin` identifies the
    shards in messages.
    """

    def __init__(
        self,
        shards: Sequence[tuple[Path, int]],
        codec: str,
        schedule: Schedule,
        grid: PatchGrid,
        input_names: tuple[str, ...],
        seed: int,
        origin: Origin,
        cached: OpenShard | None = None,
    ) -> None:
        self.schedule = schedule
        self.grid = grid
        self.codec = codec
        self.input_names = input_names
        self._seed = seed
        self._is_cached = cached is not None
        self.origin = origin
        self._open = OpenShards(shards, self._kinds, cached or MappedShard)  # of the training split
        self._last_images: tuple[int, dict[str, Pixels]] = (-1, {})  # number and images of the last sample read
        self._cold_chunks = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last_images": (-1, {})}  # views of memory maps, which cannot be pickled

    def lay_out(self, memory: Pixels, steps: int, rows: int) -> Patches:
        """Return views of a buffer as HR patches followed by input patches; each row takes `grid.bytes_per_row`."""
        patch, small = self.grid.patch, self.grid.input_patch
        middle, end = 3 * steps * rows * patch**2, steps * rows * self.grid.bytes_per_row
        hr = memory[:middle].reshape(steps, rows, patch, patch, 3)
        return Patches(hr, memory[middle:end].reshape(steps, rows, small, small, 3))

    def read(self, steps: range, rows: range, to: Patches, next_steps: range = range(0)) -> tuple[DamagedRow, ...]:
        """Write `rows` of the global batches of `steps` to `to`. `next_steps` are likely to be read next.

        A damaged sample is reported and replaced by the next intact one by number, so that batches keep their shape and
        do not depend on which process reads which rows. DamagedMember when 100 consecutive samples are damaged;
        FormatError or OSError when a shard cannot be opened.
        """
        if not steps:
            return ()
        if self._is_cached:
            self._keep(self._block_shards(steps))
        crops = self.drawn(steps, rows)
        if self._is_cold(crops):
            for crop in crops.specs():
                self._read_ahead(crop)
            for crop in self.drawn(next_steps, rows).specs() if next_steps else ():
                # The cache has no space reserved for shards beyond these steps.
                if not self._is_cached or self.schedule.shard_of(crop.number)[0] in self._open:
                    self._read_ahead(crop)
        cut = self._copy if self.uses_core else self._cut
        return tuple(cut(crops, to))

    @property
    def uses_core(self) -> bool:
        """Whether the compiled core copies or decodes batches."""
        return self.codec in CROP_CODECS and native.is_available()

    def drawn(self, steps: range, rows: range) -> DrawnCrops:
        """Draw the crops of these rows of the global batches of `steps`, of which there is at least one."""
        samples = self.schedule.batches(steps, rows)
        variants = samples.variants(self._seed, len(self.input_names))
        return DrawnCrops(samples.numbers, variants, self.grid.draw_cuts(self._seed, samples))

    def _copy(self, crops: DrawnCrops, to: Patches) -> Iterable[DamagedRow]:
        """Copy the patches of all intact samples at once, and those that replace others one by one."""
        hr, small = (MappedPatches(len(crops.numbers)) for _ in to)
        shards, positions = self.schedule.shards_of(crops.numbers)
        for shard in np.unique(shards).tolist():
            rows, images = np.flatnonzero(shards == shard), self._open.images(shard)
            hr.add(images, rows, np.zeros_like(rows), positions[rows])
            small.add(images, rows, 1 + crops.variants[rows], positions[rows])
        is_intact = self._write_hr(hr, crops.cuts, to.hr) & self._write_input(small, crops.cuts, to.input)
        return () if is_intact.all() else self._cut(crops, to, ~is_intact)

    def _write_hr(self, hr: MappedPatches, cuts: Int64s, to: Pixels) -> Bools:
        patch = self.grid.patch
        return hr.write(self._kinds[0], cuts, self.grid.scale, to.reshape(-1, patch, patch, 3))

    def _write_input(self, small: MappedPatches, cuts: Int64s, to: Pixels) -> Bools:
        grid, kind = self.grid, self._kinds[1]
        patches = to.reshape(-1, grid.input_patch, grid.input_patch, 3)
        if not grid.up_method:
            return small.write(kind, cuts, grid.scale // grid.input_scale, patches)
        is_intact = np.empty(len(patches), np.bool_)
        lr = np.empty((_LR_AT_A_TIME, kind.px, kind.px, 3), np.uint8)
        for first in range(0, len(patches), _LR_AT_A_TIME):
            rows = slice(first, first + _LR_AT_A_TIME)
            images = lr[: len(patches[rows])]
            is_intact[rows] = small[rows].write(kind, np.zeros_like(cuts[:, rows]), 1, images)
            for image, cut, patch in zip(images, cuts[:, rows].T.tolist(), patches[rows], strict=True):
                grid.cut_input(image, Cut(*cut), patch)
        return is_intact

    def _cut(self, crops: DrawnCrops, to: Patches, selected: Bools | None = None) -> Iterator[DamagedRow]:
        """Cut the patches of these rows, by default all, one by one."""
        num_rows = to.hr.shape[1]
        specs = crops.specs()
        # Row by row, then by step: consecutive steps with the same sample decode it once.
        for row in range(num_rows):
            last = last_variant = -1
            for step, index in enumerate(range(row, len(specs), num_rows)):
                if selected is not None and not selected[index]:
                    last = -1  # what follows is reported as if this row had been cut too
                    continue
                number, variant, cut = specs[index]
                if number != last or variant != last_variant:
                    found: list[DamagedSample] = []
                    hr, small = self.intact_images(number, variant, found)
                    yield from (DamagedRow(step, row, damage) for damage in found)
                    last, last_variant = number, variant
                self.grid.cut(hr, small, cut, to.hr[step, row], to.input[step, row])

    def intact_images(self, number: int, variant: int, damaged: list[DamagedSample]) -> tuple[Pixels, Pixels]:
        """Return the HR image and an input variant of a sample, or of the next sample where both are intact.

        Skipped samples are appended to `damaged`.
        """
        for offset in range(_MAX_REPLACEMENTS):
            candidate = (number + offset) % self.schedule.num_samples
            try:
                return self._images(candidate, variant)
            except DamagedMember as error:
                damaged.append(DamagedSample(candidate, str(error)))
        raise DamagedMember(f"{_MAX_REPLACEMENTS} consecutive samples are damaged, e.g. {damaged[-1].reason}")

    def read_images_ahead(self, numbers: range) -> None:
        """Start reading all images of these samples into the page cache."""
        if self._is_cached:
            self._keep({self.schedule.shard_of(number)[0] for number in numbers})
        for number in numbers:
            shard, position = self.schedule.shard_of(number)
            for name in ("hr", *self.input_names):
                self._open.shard(shard).read_ahead(position, name, self.codec, 0.0, 1.0)

    def close(self) -> None:
        """Unmap all shards; they are mapped again when needed."""
        self._open.keep(set())
        self._last_images = (-1, {})

    def _block_shards(self, steps: range) -> set[int]:
        """Return all shards of the blocks that contain the samples of these steps."""
        blocks = takewhile(lambda found: found[0] <= steps[-1], self.schedule.blocks_from(steps[0]))
        return {int(shard) for _, shards in blocks for shard in shards}

    def _keep(self, wanted: set[int]) -> None:
        """Unmap all shards but the wanted ones."""
        if self._open.keep(wanted):
            self._last_images = (-1, {})  # views of them would keep the mappings alive

    def _images(self, number: int, variant: int) -> tuple[Pixels, Pixels]:
        shard, position = self.schedule.shard_of(number)
        images = self._open.shard(shard)
        if number != self._last_images[0]:
            self._last_images = (number, {})
        known = self._last_images[1]  # consecutive variants of a sample decode its HR image once
        input_name = self.input_names[variant]
        for name, size in zip(("hr", input_name), self._image_sizes, strict=True):
            if name not in known:
                known[name] = images.image(position, name, self.codec, size)
        return known["hr"], known[input_name]

    def _is_cold(self, crops: DrawnCrops) -> bool:
        """Return whether a recent chunk was not in the page cache, after probing some crops of this one.

        Requesting read-ahead for every crop would add a third to the time of copying those that are cached already.
        """
        self._cold_chunks = max(0, self._cold_chunks - 1)
        for number, variant, cut in crops.specs(_PROBE_EVERY):
            shard_number, position = self.schedule.shard_of(number)
            shard, extent = self._open.shard(shard_number), self.grid.vertical_extent(cut)
            is_cached = shard.in_memory(position, "hr", self.codec, *extent)
            if is_cached and len(self.input_names) > 1:  # a single variant was read whenever HR was
                is_cached = shard.in_memory(position, self.input_names[variant], self.codec, *extent)
            if not is_cached:
                self._cold_chunks = _COLD_CHUNKS
                break
        return self._cold_chunks > 0

    def _read_ahead(self, crop: PatchSpec) -> None:
        shard, position = self.schedule.shard_of(crop.number)
        extents = (self.grid.vertical_extent(crop.cut), self.grid.stored_extent(crop.cut))
        for name, extent in zip(("hr", self.input_names[crop.variant]), extents, strict=True):
            self._open.shard(shard).read_ahead(position, name, self.codec, *extent)

    @property
    def _kinds(self) -> list[ImageKind]:
        """HR, and the stored variants of the network input."""
        names, (hr, small) = self.input_names, self._image_sizes
        return [ImageKind.of("hr", hr, self.codec), *(ImageKind.of(name, small, self.codec) for name in names)]

    @property
    def _image_sizes(self) -> tuple[int, int]:
        """Edge lengths of HR and stored input images in px."""
        return self.grid.hr, self.grid.stored_input
