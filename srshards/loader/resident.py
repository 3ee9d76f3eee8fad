"""Keep all samples on the device and gather batches there, byte-identical to those from workers."""

from collections.abc import Iterator
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch

from srshards.errors import ArgumentError
from srshards.loader.batches import BatchReader, DamagedSample, PatchSpec
from srshards.loader.patch_batch import PatchBatch
from srshards.process.shortages import is_out_of_memory
from srshards.sampling.chunks import Rows
from srshards.sampling.patches import NUM_SYMMETRIES, PatchGrid, lattice
from srshards.shards.mapped import reading

_STEPS_AT_A_TIME = 8  # steps whose crops are chosen and sent to the device together
_READ_AHEAD = 32  # samples
_BYTES_PER_CROP = 320  # as measured
_LATTICES = np.array([lattice(symmetry) for symmetry in range(NUM_SYMMETRIES)], np.int64)


def resident_bytes(grid: PatchGrid, num_samples: int, variants: int) -> int:
    """Return the size on the device of the HR images and all variants of the input images."""
    return num_samples * 3 * (grid.hr**2 + variants * (grid.hr // grid.input_scale) ** 2)


def crop_memory_bytes(rows: Rows) -> int:
    """Return the CPU memory in bytes for the crops that are chosen together."""
    return _STEPS_AT_A_TIME * rows.per_step * _BYTES_PER_CROP


class ResidentBatches:
    """The batches of steps first .. stop-1, gathered on the device.

    Starting raises RunError when a shard cannot be read, and ArgumentError when the samples do not fit. `wait_s` is the
    time spent choosing crops, while the device has no new work.
    """

    def __init__(self, reader: BatchReader, rows: Rows, first: int, stop: int, device: torch.device) -> None:
        self.wait_s = 0.0
        self._reader = reader
        self._rows = rows
        self._steps = range(first, stop)
        self._device = device
        self._variants = len(reader.input_names)
        # By sample number and requested variant.
        self._damaged: dict[tuple[int, int], tuple[DamagedSample, ...]] = {}

    def started(self) -> Iterator[PatchBatch]:
        """Copy all samples to the device, then return an iterator over the batches."""
        grid = self._reader.grid
        try:
            with reading(self._reader.origin):
                hr, small = self._load()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise ArgumentError(
                f"`resident`: the samples do not fit in the memory of {self._device}; omit `resident`"
            ) from error
        return self._batches(
            _Images(hr, grid.scale, grid.patch), _Images(small, grid.scale // grid.input_scale, grid.input_patch)
        )

    def _load(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return N x H x H x 3 HR and N * V x h x h x 3 input images: the V variants of a sample are consecutive.

        Damaged images are left uninitialised: `_replaced` redirects their crops to other samples.
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
                hr_image, input_image = self._reader.intact_images(number, variant, damaged)
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
            used = [self._replaced(crop) for crop in crops] if self._damaged else crops
            columns = np.array([(number, variant, *cut) for number, variant, cut in used], np.int64).T
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
        """Return the crop, taken from the sample that `BatchReader` would substitute if this one is damaged."""
        num_skipped = len(self._damaged.get(crop[:2], ()))
        return crop._replace(number=(crop.number + num_skipped) % self._reader.schedule.num_samples)

    def _damage(self, crops: list[PatchSpec]) -> tuple[DamagedSample, ...]:
        if not self._damaged:
            return ()
        return tuple(damage for crop in crops for damage in self._damaged.get(crop[:2], ()))


class _Images:
    """N x H x H x 3 images on the device, with patches that start at multiples of `unit` px."""

    def __init__(self, images: torch.Tensor, unit: int, patch: int) -> None:
        self._pixels = images.view(-1, 3)
        self._size = images.shape[1]
        self._unit = unit
        self._patch = patch
        self._along = torch.arange(patch, device=images.device)

    def corners(self, images: npt.NDArray[np.int64], cuts: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return, on the device, the index of each crop's first pixel and its row and column strides in pixels.

        `images` selects the image of each crop; `cuts` (3 x crops) has its top, left and symmetry.
        """
        tops, lefts, symmetries = cuts
        steps = _LATTICES[symmetries] @ np.array([self._size, 1])  # rows and columns to pixels
        steps[:, 0] *= self._patch - 1
        steps[:, 0] += (images * self._size + tops * self._unit) * self._size + lefts * self._unit
        host = torch.from_numpy(steps)
        if self._pixels.is_cuda:
            host = host.pin_memory()
        return host.to(self._pixels.device, non_blocking=True)

    def gather(self, corners: torch.Tensor) -> torch.Tensor:
        """Return the patches (N x p x p x 3) for the rows of `corners`."""
        start, down, right = corners[:, :, None, None].unbind(1)
        indices = start + down * self._along[:, None] + right * self._along
        return self._pixels.index_select(0, indices.flatten()).view(*indices.shape, 3)
