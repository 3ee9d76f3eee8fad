"""Statistics of samples, kept as integer sums so that any order of addition gives the same result."""

import functools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srshards.imaging.pixels import Pixels

_LISTS = ("channel_sums", "channel_squares", "classes")
_PSNRS = ("psnr_min", "psnr_max")


@dataclass(frozen=True)
class ChannelSums:
    """Sum and sum of squares of an image's grey levels (0-255), per channel, exact."""

    sums: tuple[int, ...]
    squares: tuple[int, ...]

    @classmethod
    def of(cls, pixels: Pixels) -> "ChannelSums":
        """Return the sums of an H x W x 3 uint8 image."""
        # Per plane, OpenCV is twice as fast as `meanStdDev`. Its sums of integers are exact in float64.
        planes = cv2.split(pixels, _plane_buffers(pixels.shape[:2]))
        squares = tuple(round(cv2.norm(plane, cv2.NORM_L2SQR)) for plane in planes)
        return cls(tuple(round(total) for total in cv2.sumElems(pixels)[:3]), squares)


@functools.lru_cache(maxsize=8)
def _plane_buffers(shape: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Return buffers for an image's channels, cached because allocation takes longer than the sums."""
    return [np.empty(shape, np.uint8) for _ in range(3)]


def psnr_up(hr: Pixels, up: Pixels) -> float | None:
    """Return the PSNR of `up` against `hr` in dB over all RGB pixels, rounded to 1e-4; None when they are equal."""
    error = cv2.norm(hr, up, cv2.NORM_L2SQR) / hr.size
    return None if error == 0 else round(10 * math.log10(255**2 / error), 4)


@dataclass
class Statistics:
    """Sums over the samples of a shard or a split."""

    samples: int = 0
    pixels: int = 0  # HR pixels
    channel_sums: list[int] = field(default_factory=lambda: [0, 0, 0])
    channel_squares: list[int] = field(default_factory=lambda: [0, 0, 0])
    classes: Counter[str] = field(default_factory=Counter)
    psnr_ten_thousandths: int = 0  # sum of the samples' PSNR in 1e-4 dB
    psnr_min: float | None = None
    psnr_max: float | None = None
    identical: int = 0  # samples whose `up` equals `hr`: no finite PSNR

    def add(self, class_name: str, num_pixels: int, channels: ChannelSums, psnr: float | None) -> None:
        """Add a sample: class, HR pixels and their sums, and PSNR of `up` in dB (None if `up` equals HR)."""
        self.samples += 1
        self.pixels += num_pixels
        self.channel_sums = [a + b for a, b in zip(self.channel_sums, channels.sums, strict=True)]
        self.channel_squares = [a + b for a, b in zip(self.channel_squares, channels.squares, strict=True)]
        self.classes[class_name] += 1
        if psnr is None:
            self.identical += 1
        else:
            self.psnr_ten_thousandths += round(psnr * 10_000)
            self._extend_psnr_range(psnr, psnr)

    def _extend_psnr_range(self, low: float | None, high: float | None) -> None:
        self.psnr_min = min((v for v in (self.psnr_min, low) if v is not None), default=None)
        self.psnr_max = max((v for v in (self.psnr_max, high) if v is not None), default=None)

    @classmethod
    def total(cls, parts: Iterable["Statistics"]) -> "Statistics":
        """Return the statistics of all samples of the parts."""
        total = cls()
        for part in parts:
            total.samples += part.samples
            total.pixels += part.pixels
            total.channel_sums = [a + b for a, b in zip(total.channel_sums, part.channel_sums, strict=True)]
            total.channel_squares = [a + b for a, b in zip(total.channel_squares, part.channel_squares, strict=True)]
            total.classes.update(part.classes)
            total.psnr_ten_thousandths += part.psnr_ten_thousandths
            total.identical += part.identical
            total._extend_psnr_range(part.psnr_min, part.psnr_max)
        return total

    def as_dict(self) -> dict[str, Any]:
        """Return the sums as JSON for a marker; `from_dict` is the inverse."""
        return {**vars(self), "classes": dict(sorted(self.classes.items()))}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Statistics":
        """Parse the result of `as_dict`. KeyError, TypeError or ValueError when the value is malformed."""
        numbers = {name: number for name, number in value.items() if name not in _LISTS}
        counts = [*(n for name, n in numbers.items() if name not in _PSNRS)]
        counts += [*value["channel_sums"], *value["channel_squares"], *value["classes"].values()]
        if any(type(count) is not int or not 0 <= count < 2**63 for count in counts):
            raise ValueError("expected counts from 0 to 2^63 - 1")
        if any(type(numbers[name]) not in (float, int, type(None)) for name in _PSNRS):
            raise ValueError("expected numbers or null for PSNR")
        if len(value["channel_sums"]) != 3 or len(value["channel_squares"]) != 3:
            raise ValueError("expected sums of three channels")
        return cls(**{**value, "classes": Counter(value["classes"])})

    def summary(self) -> dict[str, Any]:
        """Return the manifest's statistics: mean and deviation per HR channel in [0, 1], PSNR of `up` in dB, counts."""
        means = [total / self.pixels for total in self.channel_sums] if self.pixels else []
        variances = [s / self.pixels - m * m for s, m in zip(self.channel_squares, means, strict=False)]
        finite = self.samples - self.identical
        return {
            "channel_mean": [round(mean / 255, 6) for mean in means],
            "channel_std": [round(math.sqrt(max(variance, 0)) / 255, 6) for variance in variances],
            "samples_per_class": dict(sorted(self.classes.items())),
            "psnr_up_db": {
                "mean": round(self.psnr_ten_thousandths / finite / 10_000, 4) if finite else None,
                "min": self.psnr_min,
                "max": self.psnr_max,
                "identical": self.identical,
            },
        }
