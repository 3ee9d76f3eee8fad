"""All samples on the device, and batches gathered there: the same bytes as the ring brings, without a loader."""

from collections.abc import Iterator
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch

from srshards.errors import ArgumentError
from srshards.loader.batches import BatchReader, DamagedSample, PatchSpec
from srshards.loader.patch_batch import PatchBatch
from srshards.process.resources import is_out_of_memory
from srshards.sampling.chunks import Rows
from srshards.sampling.patches import NUM_TURNS, PatchGrid, lattice
from srshards.shards.mapped import reading

_STEPS_AT_A_TIME = 8  # for which the crops are drawn, and sent to the device at once
_READ_AHEAD = 32  # samples
_BYTES_PER_CROP = 320  # while it is drawn, as measured
_LATTICES = np.array([lattice(turn) for turn in range(NUM_TURNS)], np.int64)


def resident_bytes(grid: PatchGrid, num_samples: int, variants: int) -> int:
    """What the HR images and all variants of the input images take on the device."""
    return num_samples * 3 * (grid.hr**2 + variants * (grid.hr // grid.input_scale) ** 2)


def drawing_bytes(rows: Rows) -> int:
    """What the crops take that are drawn at a time."""
    return _STEPS_AT_A_TIME * rows.per_step * _BYTES_PER_CROP


class ResidentBatches:
    """Iterates over the batches of the steps first .. stop-1. RunError when a shard cannot be read, ArgumentError when
    the samples do not fit.

    The time spent waiting is that of drawing the crops: the device has nothing new to do meanwhile.
    """

    def __init__(self, reader: BatchReader, rows: Rows, first: int, stop: int, device: torch.device) -> None:
        self.wait_s = 0.0
        self._reader = reader
        self._rows = rows
        self._steps = range(first, stop)
        self._device = device
        self._variants = len(reader.input_names)
        # By the number of the sample and the variant that was asked for.
        self._damaged: dict[tuple[int, int], tuple[DamagedSample, ...]] = {}

    def started(self) -> Iterator[PatchBatch]:
        """The batches, in order. Returns when all samples are on the device."""
        grid = self._reader.grid
        try:
            with reading(self._reader.origin):
                hr, small = self._load()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise ArgumentError(
                f"`resident`: the samples do not fit into {self._device}'s memory; leave it out"
            ) from error
        return self._batches(
            _Images(hr, grid.scale, grid.patch), _Images(small, grid.scale // grid.input_scale, grid.input_patch)
        )

    def _load(self) -> tuple[torch.Tensor, torch.Tensor]:
        """N x H x H x 3 HR images and N * V x h x h x 3 input images: of each sample its V variants, side by side.

        There is nothing in the place of a damaged one: `_replaced` looks elsewhere.
        """
        grid, count = self._reader.grid, self._reader.schedule.num_samples
        size = grid.hr // grid.input_scale
        hr = torch.empty((count, grid.hr, grid.hr, 3), dtype=torch.uint8, device=self._device)
        small = torch.empty((count * self._variants, size, size, 3), dtype=torch.uint8, device=self._device)
        for number in range(count):
            if number % _READ_AHEAD == 0:
                self._reader.read_images_ahead(range(number, min(number + 2 * _READ_AHEAD, count)))
            missing_hr = True
            for variant in range(self._variants):
                damaged: list[DamagedSample] = []
                hr_image, input_image = self._reader.sound_images(number, variant, damaged)
                if damaged:
                    self._damaged[number, variant] = tuple(damaged)
                    continue
                small[number * self._variants + variant].copy_(torch.from_numpy(np.array(input_image)))
                if missing_hr:
                    hr[number].copy_(torch.from_numpy(np.array(hr_image)))
                    missing_hr = False
        self._reader.close()
        return hr, small

    def _batches(self, hr: "_Images", small: "_Images") -> Iterator[PatchBatch]:
        rows = self._rows.of_step
        for start in range(self._steps.start, self._steps.stop, _STEPS_AT_A_TIME):
            start_s = perf_counter()
            steps = range(start, min(start + _STEPS_AT_A_TIME, self._steps.stop))
            crops = [crop for of_step in self._reader.crops(steps, rows) for crop in of_step]
            shown = [self._replaced(crop) for crop in crops] if self._damaged else crops
            columns = np.array([(number, variant, *cut) for number, variant, cut in shown], np.int64).T
            numbers, variants, cuts = columns[0], columns[1], columns[2:]
            hr_corners = hr.corners(numbers, cuts)
            small_corners = small.corners(numbers * self._variants + variants, cuts)
            self.wait_s += perf_counter() - start_s
            for first in range(0, len(crops), self._rows.batch):
                batch = slice(first, first + self._rows.batch)
                yield PatchBatch(
                    hr.gather(hr_corners[batch]), small.gather(small_corners[batch]), self._damage(crops[batch])
                )

    def _replaced(self, crop: PatchSpec) -> PatchSpec:
        """The same place in the sample that the ring puts in the place of this one, which may be damaged."""
        passed_over = len(self._damaged.get(crop[:2], ()))
        return crop._replace(number=(crop.number + passed_over) % self._reader.schedule.num_samples)

    def _damage(self, crops: list[PatchSpec]) -> tuple[DamagedSample, ...]:
        if not self._damaged:
            return ()
        return tuple(damage for crop in crops for damage in self._damaged.get(crop[:2], ()))


class _Images:
    """N x H x H x 3 images on the device, of which patches begin at multiples of `unit` px."""

    def __init__(self, images: torch.Tensor, unit: int, patch: int) -> None:
        self._pixels = images.view(-1, 3)
        self._size = images.shape[1]
        self._unit = unit
        self._patch = patch
        self._along = torch.arange(patch, device=images.device)

    def corners(self, images: npt.NDArray[np.int64], cuts: npt.NDArray[np.int64]) -> torch.Tensor:
        """By crop: the number of its first pixel, and how far the next row and the next column are. On the device.

        `images` says which of the N, `cuts` (3 x crops) the place and the turn.
        """
        tops, lefts, turns = cuts
        steps = _LATTICES[turns] @ np.array([self._size, 1])  # rows and columns to pixels
        steps[:, 0] *= self._patch - 1
        steps[:, 0] += (images * self._size + tops * self._unit) * self._size + lefts * self._unit
        host = torch.from_numpy(steps)
        if self._pixels.is_cuda:
            host = host.pin_memory()
        return host.to(self._pixels.device, non_blocking=True)

    def gather(self, corners: torch.Tensor) -> torch.Tensor:
        """N x p x p x 3: a patch for each row of `corners`."""
        start, down, right = corners[:, :, None, None].unbind(1)
        places = start + down * self._along[:, None] + right * self._along
        return self._pixels.index_select(0, places.flatten()).view(*places.shape, 3)
