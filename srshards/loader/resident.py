"""Keep all samples on the device and gather batches there, byte-identical to those from workers."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch

from srshards.errors import ArgumentError
from srshards.loader.ahead import computed_ahead
from srshards.loader.batches import BatchReader, DamagedSample, DrawnCrops
from srshards.loader.patch_batch import PatchBatch
from srshards.process.shortages import is_out_of_memory
from srshards.sampling.chunks import Rows
from srshards.sampling.patches import NUM_SYMMETRIES, PatchGrid, lattice
from srshards.shards.mapped import reading

_STEPS_AT_A_TIME = 8  # steps whose crops are drawn and sent to the device together
_GROUPS_AHEAD = 2  # of so many steps
_READ_AHEAD = 32  # samples
_BYTES_PER_CROP = 120  # as measured
_MAX_PIXELS_OF_32_BITS = 2**31
_LATTICES = np.array([lattice(symmetry) for symmetry in range(NUM_SYMMETRIES)], np.int64)


def resident_bytes(grid: PatchGrid, num_samples: int, variants: int) -> int:
    """Return the size on the device of the HR images and all variants of the input images, upsampled if necessary."""
    return num_samples * 3 * (grid.hr**2 + variants * (grid.hr // grid.input_scale) ** 2)


def crop_memory_bytes(rows: Rows) -> int:
    """Return the CPU memory in bytes for the crops that are drawn in advance."""
    return (1 + _GROUPS_AHEAD) * _STEPS_AT_A_TIME * rows.per_step * _BYTES_PER_CROP


class ResidentBatches:
    """The batches of steps first .. stop-1, gathered on the device.

    Starting raises RunError when a shard cannot be read, and ArgumentError when the samples do not fit. A thread draws
    crops a few steps ahead, so that this one is free to launch work on the device; `wait_s` is the time spent waiting
    for it.
    """

    def __init__(self, reader: BatchReader, rows: Rows, first: int, stop: int, device: torch.device) -> None:
        self.wait_s = 0.0
        self._reader = reader
        self._rows = rows
        self._steps = range(first, stop)
        self._device = device
        self._num_variants = len(reader.input_names)
        # By sample number and requested variant: the samples that are skipped, and how many.
        self._damaged: dict[tuple[int, int], tuple[DamagedSample, ...]] = {}
        self._num_skipped = np.zeros((reader.schedule.num_samples, self._num_variants), np.int64)

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
            ResidentImages(hr, grid.scale, grid.patch),
            ResidentImages(small, grid.scale // grid.input_scale, grid.input_patch),
        )

    def _load(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return N x H x H x 3 HR and N * V x h x h x 3 input images: the V variants of a sample are consecutive.

        Damaged images are left uninitialised: `_draw` redirects their crops to other samples.
        """
        grid, count = self._reader.grid, self._reader.schedule.num_samples
        size = grid.hr // grid.input_scale
        hr = torch.empty((count, grid.hr, grid.hr, 3), dtype=torch.uint8, device=self._device)
        small = torch.empty((count * self._num_variants, size, size, 3), dtype=torch.uint8, device=self._device)
        for number in range(count):
            if number % _READ_AHEAD == 0:
                self._reader.read_images_ahead(range(number, min(number + 2 * _READ_AHEAD, count)))
            missing_hr = True
            for variant in range(self._num_variants):
                damaged: list[DamagedSample] = []
                hr_image, input_image = self._reader.intact_images(number, variant, damaged)
                if damaged:
                    self._damaged[number, variant] = tuple(damaged)
                    self._num_skipped[number, variant] = len(damaged)
                    continue
                whole_input = torch.from_numpy(np.array(grid.whole_input(input_image)))
                small[number * self._num_variants + variant].copy_(whole_input)
                if missing_hr:
                    hr[number].copy_(torch.from_numpy(np.array(hr_image)))
                    missing_hr = False
        self._reader.close()
        return hr, small

    def _batches(self, hr: "ResidentImages", small: "ResidentImages") -> Iterator[PatchBatch]:
        first, stop = self._steps.start, self._steps.stop
        groups = (range(start, min(start + _STEPS_AT_A_TIME, stop)) for start in range(first, stop, _STEPS_AT_A_TIME))
        with closing(computed_ahead(partial(self._draw, hr, small), groups, _GROUPS_AHEAD)) as drawn:
            while True:
                start_s = perf_counter()
                group = next(drawn, None)
                self.wait_s += perf_counter() - start_s
                if group is None:
                    return
                crops, *host = group
                hr_corners, small_corners = (_sent(corners, self._device) for corners in host)
                for start in range(0, len(crops.numbers), self._rows.batch):
                    batch = slice(start, start + self._rows.batch)
                    damage = self._damage(crops.numbers[batch], crops.variants[batch])
                    yield PatchBatch(hr.gather(hr_corners[batch]), small.gather(small_corners[batch]), damage)

    def _draw(
        self, hr: "ResidentImages", small: "ResidentImages", steps: range
    ) -> tuple[DrawnCrops, torch.Tensor, torch.Tensor]:
        """Draw the crops of these steps. Return them, and the corners of the HR and the input patches."""
        crops = self._reader.drawn(steps, self._rows.of_step)
        # A damaged sample is replaced as by `BatchReader`.
        used = (crops.numbers + self._num_skipped[crops.numbers, crops.variants]) % len(self._num_skipped)
        hr_corners = hr.corners(used, crops.cuts)
        return crops, hr_corners, small.corners(used * self._num_variants + crops.variants, crops.cuts)

    def _damage(self, numbers: npt.NDArray[np.int64], variants: npt.NDArray[np.int64]) -> tuple[DamagedSample, ...]:
        if not self._damaged:
            return ()
        crops = zip(numbers.tolist(), variants.tolist(), strict=True)
        return tuple(damage for crop in crops for damage in self._damaged.get(crop, ()))


class ResidentImages:
    """N x H x H x 3 images on the device, with patches that start at multiples of `unit` px."""

    def __init__(self, images: torch.Tensor, unit: int, patch: int) -> None:
        self._pixels = images.view(-1, 3)
        self._size = images.shape[1]
        self._unit = unit
        self._patch = patch
        # Of positions, which are counted in pixels. Half as many bits are half as much memory to write and read.
        self._dtype = torch.int32 if len(self._pixels) <= _MAX_PIXELS_OF_32_BITS else torch.int64
        self._along = torch.arange(patch, dtype=self._dtype, device=images.device)

    def corners(self, images: npt.NDArray[np.int64], cuts: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return, on the CPU, the position of each crop's first pixel and its steps to the next row and column.

        `images` selects the image of each of N crops; `cuts` is a 3 x N array with the fields of `Cut`. The result is
        N x 3, in pixels from the first one of the first image.
        """
        tops, lefts, symmetries = cuts
        steps = _LATTICES[symmetries] @ np.array([self._size, 1])  # rows and columns to pixels
        steps[:, 0] *= self._patch - 1
        steps[:, 0] += (images * self._size + tops * self._unit) * self._size + lefts * self._unit
        return torch.from_numpy(steps).to(self._dtype)

    def gather(self, corners: torch.Tensor) -> torch.Tensor:
        """Return the patches (N x p x p x 3) for N rows of `corners`, which are on the device."""
        found = positions(corners, self._along)
        return self._pixels.index_select(0, found.flatten()).view(*found.shape, 3)


def positions(corners: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    """Return the positions (N x p x p) of the pixels of N patches. `along` is 0 .. p-1. Has the type of `corners`."""
    start, down, right = corners[:, :, None, None].unbind(1)
    return start + down * along[:, None] + right * along


def _sent(corners: torch.Tensor, device: torch.device) -> torch.Tensor:
    host = corners.pin_memory() if device.type == "cuda" else corners
    return host.to(device, non_blocking=True)
