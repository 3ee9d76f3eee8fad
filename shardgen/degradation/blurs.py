"""Blur: Gaussian families and sinc as Real-ESRGAN draws them, motion and defocus; and a fast exact convolution."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from shardgen.degradation import kernels
from shardgen.degradation.kernels import Kernel
from shardgen.degradation.rng import Dice
from shardgen.degradation.settings import Categorical, Integers, Setting, Uniform
from shardgen.degradation.step import Image, Parameters, Settings, Sizes, Step, draw_each

# The smallest weights of a kernel are left out, up to this sum, in each step of the arithmetic. What comes out differs
# by 0.06 grey levels at most, and half of the weights of an anisotropic Gaussian are gone.
_NEGLIGIBLE = 1e-4
# OpenCV filters directly, in time for the weights that are not 0, while a kernel's box has fewer entries than 130, and
# takes a DFT from there on. At 512 x 512 px: 0.03 ms per weight, or 12-17 ms.
_DIRECT_ENTRIES = 129
_DFT_WEIGHTS = 450

_KERNELS = {
    "isotropic": 0.45,
    "anisotropic": 0.25,
    "generalized_isotropic": 0.12,
    "generalized_anisotropic": 0.03,
    "plateau_isotropic": 0.12,
    "plateau_anisotropic": 0.03,
}
_SIZE = Integers((7, 21), "edge of the kernel in px", 3, 51, odd=True)


def convolve(image: Image, kernel: Kernel) -> Image:
    """`image` blurred by a kernel that sums to 1; the image goes on mirrored about its outermost pixels."""
    rows, columns = kernel.sum(axis=1), kernel.sum(axis=0)
    if np.abs(kernel - np.outer(rows, columns)).sum() < _NEGLIGIBLE:  # then it is the product of its sums
        return _image(cv2.sepFilter2D(image, -1, _line(columns), _line(rows), borderType=cv2.BORDER_REFLECT_101))
    weights = _without_negligible(kernel)
    if np.count_nonzero(weights) > _DFT_WEIGHTS:
        return _image(cv2.filter2D(image, -1, weights, borderType=cv2.BORDER_REFLECT_101))
    return _convolve_in_bands(image, weights)


def _without_negligible(weights: Kernel) -> NDArray[np.float32]:
    """The same sum with 0 for the smallest weights; of equal ones all or none, so that a kernel stays centred."""
    sizes = np.sort(np.abs(weights), axis=None)
    smallest = sizes[np.searchsorted(np.cumsum(sizes), _NEGLIGIBLE)]
    kept = np.where(np.abs(weights) < smallest, 0, weights)
    return np.asarray(kept / kept.sum(), dtype=np.float32)


def _line(weights: Kernel) -> NDArray[np.float32]:
    """A row of weights without negligible ends."""
    line = _without_negligible(weights)
    ends = int(np.flatnonzero(line)[0])
    return line[ends : len(line) - ends]


def _convolve_in_bands(image: Image, kernel: NDArray[np.float32]) -> Image:
    """The sum of the kernel's bands of rows, each small enough for OpenCV's direct filter."""
    height, width = image.shape[:2]
    middle = kernel.shape[0] // 2
    padded = cv2.copyMakeBorder(image, middle, middle, middle, middle, cv2.BORDER_REFLECT_101)
    total: Image | None = None
    for top, bottom, left, right in _boxes(kernel):
        part = padded[top : bottom - 1 + height, left : right - 1 + width]
        blurred = cv2.filter2D(part, -1, kernel[top:bottom, left:right], anchor=(0, 0))[:height, :width]
        total = np.array(blurred) if total is None else np.add(total, blurred, out=total)
    assert total is not None  # a kernel sums to 1
    return total


def _boxes(kernel: NDArray[np.float32]) -> list[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of bands that hold all weights, each of as many rows as may be filtered directly."""
    boxes: list[tuple[int, int, int, int]] = []
    for row in np.flatnonzero(kernel.any(axis=1)).tolist():
        taken = np.flatnonzero(kernel[row]).tolist()
        box = row, row + 1, taken[0], taken[-1] + 1
        if boxes:
            top, _, left, right = boxes[-1]
            both = top, row + 1, min(left, box[2]), max(right, box[3])
            if (both[1] - both[0]) * (both[3] - both[2]) <= _DIRECT_ENTRIES:
                boxes[-1] = both
                continue
        boxes.append(box)
    return boxes


def _image(array: object) -> Image:
    return np.asarray(array, dtype=np.float32)


_BLUR: dict[str, Setting] = {
    "kernel": Categorical(_KERNELS, "shape", tuple(_KERNELS)),
    "size": _SIZE,
    "sigma": Uniform((0.2, 3.0), "standard deviation in px; an anisotropic kernel draws two", 0.05, 25),
    "beta_generalized": Uniform(
        (0.5, 4.0), "exponent of the generalized Gaussians: 1 is Gaussian, more is flatter", 0.1, 10
    ),
    "beta_plateau": Uniform((1.0, 2.0), "exponent of the plateaus: more has steeper edges", 0.1, 10),
}


def _draw_blur(values: Settings, dice: Dice, sizes: Sizes) -> Parameters:
    """What the kernel needs and nothing else, in Real-ESRGAN's distributions."""
    kernel, size, sigma = (_BLUR[name].draw(values[name], dice) for name in ("kernel", "size", "sigma"))
    drawn = {"kernel": kernel, "size": size, "sigma": sigma}
    if kernel.endswith("anisotropic"):
        drawn["sigma"] = [sigma, _BLUR["sigma"].draw(values["sigma"], dice)]
        drawn["rotation"] = dice.uniform(-math.pi, math.pi)
    if kernel.startswith("generalized"):
        drawn["beta"] = _draw_beta(values["beta_generalized"], dice)
    if kernel.startswith("plateau"):
        drawn["beta"] = _draw_beta(values["beta_plateau"], dice)
    return drawn


def _draw_beta(ends: tuple[float, float], dice: Dice) -> float:
    """As often below 1 as above it, if the range has both."""
    low, high = ends
    if low < 1 < high:
        low, high = (low, 1) if dice.chance(0.5) else (1, high)
    return dice.uniform(low, high)


def _apply_blur(image: Image, parameters: Parameters) -> Image:
    name, sigma = parameters["kernel"], parameters["sigma"]
    sigma_x, sigma_y = sigma if name.endswith("anisotropic") else (sigma, sigma)
    shape = (parameters["size"], sigma_x, sigma_y, parameters.get("rotation", 0.0))
    if name.startswith("generalized"):
        kernel = kernels.generalized_gaussian(*shape, parameters["beta"])
    elif name.startswith("plateau"):
        kernel = kernels.plateau(*shape, parameters["beta"])
    else:
        kernel = kernels.gaussian(*shape)
    return convolve(image, kernel)


_SINC: dict[str, Setting] = {
    "size": _SIZE,
    "cutoff": Uniform((0.628319, 3.141593), "radians per px; kernels below 13 px draw from pi/3 on", 0.1, 3.141593),
}
_LOWEST_OF_SMALL, _SMALL = math.pi / 3, 13


def _draw_sinc(values: Settings, dice: Dice, sizes: Sizes) -> Parameters:
    """A small kernel cannot cut off low frequencies without ringing everywhere: as Real-ESRGAN, not below pi/3."""
    size = _SIZE.draw(values["size"], dice)
    low, high = values["cutoff"]
    return {"size": size, "cutoff": dice.uniform(min(max(low, _LOWEST_OF_SMALL), high) if size < _SMALL else low, high)}


_MOTION: dict[str, Setting] = {
    "length": Uniform((3.0, 15.0), "length of the path in px", 1, 100),
    "angle": Uniform((0.0, 180.0), "its direction in degrees: 0 is level, 90 upright", -360, 360),
}
_LENS: dict[str, Setting] = {"radius": Uniform((1.0, 4.0), "radius of the blur disk in px", 0.1, 50)}

BLUR = Step("Gaussian, generalized Gaussian and plateau blur", _BLUR, _draw_blur, _apply_blur)
SINC = Step(
    "low-pass with ringing and overshoot",
    _SINC,
    _draw_sinc,
    lambda image, parameters: convolve(image, kernels.sinc(parameters["size"], parameters["cutoff"])),
)
MOTION_BLUR = Step(
    "camera shake along a straight line",
    _MOTION,
    draw_each(_MOTION),
    lambda image, parameters: convolve(image, kernels.motion(parameters["length"], parameters["angle"])),
)
LENS_BLUR = Step(
    "a lens out of focus",
    _LENS,
    draw_each(_LENS),
    lambda image, parameters: convolve(image, kernels.disk(parameters["radius"])),
)
