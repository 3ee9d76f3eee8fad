"""Real-ESRGAN's second-order degradation of a whole batch on the device, with PyTorch only.

Order, probabilities and ranges are those of Wang et al. 2021 (arXiv 2107.10833) and of the published training options
for x4plus. As there, what changes the shape of the computation is drawn once per batch (factors and interpolation of
the resizes, type of noise, whether the second blur takes place, order of the final steps, crop), and everything else
per image. Blur kernels are drawn on the CPU.

The host never waits for the device here. The published code waits for every image, to count its grey levels and to
scale its quantisation tables, so it takes longer than this. Omitted are USM sharpening of GT, which not all frameworks
apply, and the pool that mixes the pairs of several batches.
"""

import math
import random
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional

from benchmarks.gpu.jpeg import Jpeg

KERNEL_PX = 21
_RADIUS = KERNEL_PX // 2
_MODES = ("area", "bilinear", "bicubic")
# isotropic and anisotropic Gaussian, generalised Gaussian, plateau
_SHAPES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
_BETA_GENERALISED, _BETA_PLATEAU = (0.5, 4.0), (1.0, 2.0)
_SINC_PROBABILITY, _FINAL_SINC_PROBABILITY = 0.1, 0.8
_GREY_PROBABILITY = 0.4
_GREY = (0.2989, 0.587, 0.114)
_QUALITY = (30.0, 95.0)

Range = tuple[float, float]


@dataclass(frozen=True)
class Order:
    """Settings that differ between the two orders. `directions` are the weights of resizing up, down, and keeping."""

    sigma: Range  # px
    blur_probability: float
    directions: tuple[float, float, float]
    factor: Range
    gaussian: Range  # standard deviation in grey levels
    poisson: Range  # strength relative to photon noise


FIRST = Order((0.2, 3.0), 1.0, (0.2, 0.7, 0.1), (0.15, 1.5), (1.0, 30.0), (0.05, 3.0))
SECOND = Order((0.2, 1.5), 0.8, (0.3, 0.4, 0.3), (0.3, 1.2), (1.0, 25.0), (0.05, 2.5))


class BlurKernels(NamedTuple):
    """Kernels of a batch, each N x 21 x 21 float32 with sum 1: of both orders, and of the final sinc filter."""

    first: torch.Tensor
    second: torch.Tensor
    final: torch.Tensor


class Degradation:
    """Degrades batches to 1/`scale`, and crops pairs of `patch` HR px. All draws follow from `seed` and the device."""

    def __init__(self, device: torch.device, patch: int, scale: int, seed: int) -> None:
        self._device, self._patch, self._scale = device, patch, scale
        self._choices = random.Random(seed)
        self._kernels = torch.Generator().manual_seed(seed)
        self._pixels = torch.Generator(device).manual_seed(seed)
        self._jpeg = Jpeg(device)
        self._grey = torch.tensor(_GREY, device=device)[:, None, None]

    def draw_kernels(self, count: int) -> BlurKernels:
        """Draw the blur kernels of `count` images, on the CPU; in pinned memory if the device is a GPU."""
        final = draw_sinc(count, (math.pi / 3, math.pi / 3), self._kernels)
        blurred = torch.rand(count, 1, 1, generator=self._kernels) < _FINAL_SINC_PROBABILITY
        pulse = torch.zeros(KERNEL_PX, KERNEL_PX)
        pulse[_RADIUS, _RADIUS] = 1
        kernels = (*(draw_blurs(count, order, self._kernels) for order in (FIRST, SECOND)), final.where(blurred, pulse))
        return BlurKernels(*(each.pin_memory() for each in kernels) if self._device.type == "cuda" else kernels)

    @torch.no_grad()
    def __call__(self, hr: torch.Tensor, kernels: BlurKernels) -> tuple[torch.Tensor, torch.Tensor]:
        """Return GT and LQ, N x 3 x p x p and N x 3 x p/scale x p/scale float32 RGB in [0, 1], LQ in steps of 1/255.

        `hr` is N x 3 x H x W uint8 on the device. The kernels are copied there.
        """
        gt = hr.float() / 255
        first, second, final = (each.to(self._device, non_blocking=True) for each in kernels)
        height, width = hr.shape[2:]
        low = height // self._scale, width // self._scale

        images = self._blur_resize_noise(gt, first, FIRST, (height, width))
        images = self._blur_resize_noise(self._compress(images), second, SECOND, low)
        if self._choices.random() < 0.5:
            images = self._compress(blur(self._resize(images, low), final).clamp(0, 1))
        else:
            images = blur(self._resize(self._compress(images), low), final)
        return self._crop(gt, (255 * images).round().clamp(0, 255) / 255)

    def _blur_resize_noise(
        self, images: torch.Tensor, kernels: torch.Tensor, order: Order, base: tuple[int, int]
    ) -> torch.Tensor:
        """Apply an order up to its noise; the factor is relative to `base`, (height, width) in px."""
        if self._choices.random() < order.blur_probability:
            images = blur(images, kernels)
        factor = self._draw_factor(order)
        images = self._resize(images, (int(base[0] * factor), int(base[1] * factor)))
        noise = self._choices.choice((self._gaussian, self._poisson))
        return (images + noise(images, order)).clamp(0, 1)

    def _draw_factor(self, order: Order) -> float:
        low, high = order.factor
        ends = self._choices.choices(((1.0, high), (low, 1.0), (1.0, 1.0)), order.directions)[0]
        return self._choices.uniform(*ends)

    def _resize(self, images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return functional.interpolate(images, size=size, mode=self._choices.choice(_MODES))

    def _gaussian(self, images: torch.Tensor, order: Order) -> torch.Tensor:
        count, _, height, width = images.shape
        colour, grey = (
            torch.randn(count, channels, height, width, device=self._device, generator=self._pixels)
            for channels in (3, 1)
        )
        return self._grey_or_colour(grey, colour) * (self._uniform(count, order.gaussian) / 255)[:, None, None, None]

    def _poisson(self, images: torch.Tensor, order: Order) -> torch.Tensor:
        grey = (images * self._grey).sum(dim=1, keepdim=True)
        noise = self._grey_or_colour(*(photon_noise(source, self._pixels) for source in (grey, images)))
        return noise * self._uniform(len(images), order.poisson)[:, None, None, None]

    def _grey_or_colour(self, grey: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        """Choose one kind of noise per image. As published, both are computed for all of them."""
        is_grey = self._uniform(len(colour), (0.0, 1.0)) < _GREY_PROBABILITY
        return torch.where(is_grey[:, None, None, None], grey, colour)

    def _compress(self, images: torch.Tensor) -> torch.Tensor:
        return self._jpeg(images, self._uniform(len(images), _QUALITY))

    def _uniform(self, count: int, ends: Range) -> torch.Tensor:
        low, high = ends
        return low + (high - low) * torch.rand(count, device=self._device, generator=self._pixels)

    def _crop(self, gt: torch.Tensor, lq: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cut the same patch from all pairs."""
        size, scale = self._patch // self._scale, self._scale
        top, left = (self._choices.randint(0, edge - size) for edge in lq.shape[2:])
        patch = gt[:, :, top * scale : (top + size) * scale, left * scale : (left + size) * scale]
        return patch.contiguous(), lq[:, :, top : top + size, left : left + size].contiguous()


def blur(images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Filter each image (N x 3 x H x W float32) by its own kernel (N x 21 x 21); borders are mirrored."""
    count, channels = images.shape[:2]
    padded = functional.pad(images, (_RADIUS,) * 4, mode="reflect")
    weights = kernels.repeat_interleave(channels, dim=0)[:, None]
    return functional.conv2d(padded.flatten(0, 1)[None], weights, groups=count * channels).view(images.shape)


def photon_noise(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return Poisson noise to add to images (N x C x H x W float32 in [0, 1]): noisy minus rounded to grey levels.

    White is 2^n photons: the number of distinct levels of the image, rounded up to a power of two.
    """
    levels = (255 * images).round().clamp(0, 255)
    present = torch.zeros(len(images), 256, device=images.device).scatter_(1, levels.flatten(1).long(), 1.0)
    photons = torch.exp2(present.sum(dim=1).log2().ceil())[:, None, None, None]
    rounded = levels / 255
    return torch.poisson(rounded * photons, generator=generator) / photons - rounded


# ---- kernels


def draw_blurs(count: int, order: Order, generator: torch.Generator) -> torch.Tensor:
    """Draw kernels of an order, `count` x 21 x 21: Gaussian families, or sinc with probability 0.1."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return _uniform(count, low, high, generator)

    def below_or_above_1(ends: Range) -> torch.Tensor:
        return torch.where(uniform(0, 1) < 0.5, uniform(ends[0], 1), uniform(1, ends[1]))

    shape = torch.multinomial(torch.tensor(_SHAPES), count, replacement=True, generator=generator)[:, None, None]
    sigma_x, rotation = uniform(*order.sigma), uniform(-math.pi, math.pi)
    sigma_y = torch.where(shape % 2 == 0, sigma_x, uniform(*order.sigma))
    x, y = _grid()
    cosine, sine = rotation.cos(), rotation.sin()
    # squared distance in standard deviations
    q = ((cosine * x + sine * y) / sigma_x) ** 2 + ((cosine * y - sine * x) / sigma_y) ** 2
    beta = torch.where(shape < 2, torch.ones(()), below_or_above_1(_BETA_GENERALISED))
    family = torch.where(shape < 4, torch.exp(-0.5 * q**beta), 1 / (1 + q ** below_or_above_1(_BETA_PLATEAU)))
    is_sinc = uniform(0, 1) < _SINC_PROBABILITY
    sincs = draw_sinc(count, (math.pi / 3, math.pi / 5), generator)
    return torch.where(is_sinc, sincs, _cut(family, _draw_radius(count, generator)))


def draw_sinc(count: int, lowest: Range, generator: torch.Generator) -> torch.Tensor:
    """Draw `count` circular low-pass filters, N x 21 x 21, with cutoffs up to pi.

    `lowest` are the lowest cutoffs, in radians per px, of kernels below 13 px and of the others.
    """
    radius = _draw_radius(count, generator)
    small, large = lowest
    low = torch.where(radius < 6, torch.tensor(small), torch.tensor(large))
    cutoff = low + (math.pi - low) * _uniform(count, 0, 1, generator)
    x, y = _grid()
    distance = torch.hypot(x, y)
    distance[_RADIUS, _RADIUS] = 1
    kernels = cutoff * torch.special.bessel_j1(cutoff * distance) / (2 * math.pi * distance)
    kernels[:, _RADIUS, _RADIUS] = (cutoff**2 / (4 * math.pi)).flatten()
    return _cut(kernels, radius)


def _draw_radius(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw half the edges of kernels of 7, 9, ..., 21 px."""
    return torch.randint(3, _RADIUS + 1, (count, 1, 1), generator=generator)


def _cut(kernels: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Set the weights beyond the radius to 0 and the sum to 1."""
    x, y = _grid()
    inside = torch.maximum(x.abs(), y.abs()) <= radius
    kernels = kernels * inside
    return kernels / kernels.sum(dim=(1, 2), keepdim=True)


def _grid() -> tuple[torch.Tensor, torch.Tensor]:
    """Return x (1 x 21) and y (21 x 1) of each weight, relative to the centre."""
    line = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float32)
    return line[None, :], line[:, None]


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(count, 1, 1, generator=generator)
