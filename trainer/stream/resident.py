"""All samples on the device, and batches gathered there: the same bytes as the ring brings, without a loader."""

from collections.abc import Iterator
from time import perf_counter

import numpy as np
import torch

from shardgen.format import FormatError
from trainer.errors import RunError, UsageError
from trainer.stream.batches import BatchReader, Crop, Damage
from trainer.stream.chunks import Rows
from trainer.stream.mapped_shard import DamagedMember, mend
from trainer.stream.patches import NUM_TURNS, PatchGrid, lattice
from trainer.stream.source import Batch

_STEPS_AT_A_TIME = 8  # for which the crops are drawn, and sent to the device at once
_READ_AHEAD = 32  # samples
_LATTICES = np.array([lattice(turn) for turn in range(NUM_TURNS)], np.int64)


def resident_bytes(grid: PatchGrid, num_samples: int) -> int:
    """What the HR and input images take on the device."""
    return num_samples * 3 * (grid.hr**2 + (grid.hr // grid.input_scale) ** 2)


class ResidentSamples:
    """Iterates over the batches of the steps first .. stop-1. RunError when a shard cannot be read, UsageError when
    the samples do not fit.

    The time spent waiting is that of drawing the crops: the device has nothing new to do meanwhile.
    """

    def __init__(self, reader: BatchReader, rows: Rows, first: int, stop: int, device: torch.device) -> None:
        self.wait_s = 0.0
        self._reader = reader
        self._rows = rows
        self._steps = range(first, stop)
        self._device = device
        self._damaged: dict[int, tuple[Damage, ...]] = {}  # by the number of the sample that was asked for

    def started(self) -> Iterator[Batch]:
        """The batches, in order. Returns when all samples are on the device."""
        grid = self._reader.grid
        try:
            hr, small = self._load()
        except (FormatError, OSError, DamagedMember) as error:
            raise RunError(f"{error}; {mend(self._reader.folder)}") from error
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise UsageError(
                f"--resident: the samples do not fit into {self._device}'s memory; leave it out"
            ) from error
        return self._batches(
            _Images(hr, grid.scale, grid.patch), _Images(small, grid.scale // grid.input_scale, grid.input_patch)
        )

    def _load(self) -> tuple[torch.Tensor, torch.Tensor]:
        """N x H x H x 3 HR images and N x h x h x 3 input images, damaged ones replaced as the ring replaces them."""
        grid, count = self._reader.grid, self._reader.schedule.num_samples
        size = grid.hr // grid.input_scale
        hr = torch.empty((count, grid.hr, grid.hr, 3), dtype=torch.uint8, device=self._device)
        small = torch.empty((count, size, size, 3), dtype=torch.uint8, device=self._device)
        for number in range(count):
            if number % _READ_AHEAD == 0:
                self._reader.read_images_ahead(range(number, min(number + 2 * _READ_AHEAD, count)))
            damaged: list[Damage] = []
            images = self._reader.sound_images(number, damaged)
            for all_images, image in zip((hr, small), images, strict=True):
                all_images[number].copy_(torch.from_numpy(np.array(image)))
            if damaged:
                self._damaged[number] = tuple(damaged)
        self._reader.close()
        return hr, small

    def _batches(self, hr: "_Images", small: "_Images") -> Iterator[Batch]:
        rows = self._rows.of_step
        for start in range(self._steps.start, self._steps.stop, _STEPS_AT_A_TIME):
            start_s = perf_counter()
            steps = range(start, min(start + _STEPS_AT_A_TIME, self._steps.stop))
            crops = [crop for of_step in self._reader.crops(steps, rows) for crop in of_step]
            hr_corners, small_corners = hr.corners(crops), small.corners(crops)
            self.wait_s += perf_counter() - start_s
            for first in range(0, len(crops), self._rows.batch):
                batch = slice(first, first + self._rows.batch)
                yield Batch(
                    hr.gather(hr_corners[batch]), small.gather(small_corners[batch]), self._damage(crops[batch])
                )

    def _damage(self, crops: list[Crop]) -> tuple[Damage, ...]:
        if not self._damaged:
            return ()
        return tuple(damage for crop in crops for damage in self._damaged.get(crop.number, ()))


class _Images:
    """N x H x H x 3 images on the device, of which patches begin at multiples of `unit` px."""

    def __init__(self, images: torch.Tensor, unit: int, patch: int) -> None:
        self._pixels = images.view(-1, 3)
        self._size = images.shape[1]
        self._unit = unit
        self._patch = patch
        self._along = torch.arange(patch, device=images.device)

    def corners(self, crops: list[Crop]) -> torch.Tensor:
        """By crop: the number of its first pixel, and how far the next row and the next column are. On the device."""
        numbers, tops, lefts, turns = np.array([(number, *cut) for number, cut in crops], np.int64).T
        steps = _LATTICES[turns] @ np.array([self._size, 1])  # rows and columns to pixels
        steps[:, 0] *= self._patch - 1
        steps[:, 0] += (numbers * self._size + tops * self._unit) * self._size + lefts * self._unit
        host = torch.from_numpy(steps)
        if self._pixels.is_cuda:
            host = host.pin_memory()
        return host.to(self._pixels.device, non_blocking=True)

    def gather(self, corners: torch.Tensor) -> torch.Tensor:
        """N x p x p x 3: a patch for each row of `corners`."""
        start, down, right = corners[:, :, None, None].unbind(1)
        places = start + down * self._along[:, None] + right * self._along
        return self._pixels.index_select(0, places.flatten()).view(*places.shape, 3)
