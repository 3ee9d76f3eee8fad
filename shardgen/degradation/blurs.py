"""Blur steps: Gaussian families and sinc drawn as in Real-ESRGAN, motion and defocus; and a fast convolution."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from shardgen.degradation import kernels
from shardgen.degradation.kernels import Kernel
from shardgen.degradation.rng import KeyedRng
from shardgen.degradation.settings import Categorical, Integers, Setting, Uniform
from shardgen.degradation.step import Image, Parameters, Settings, Sizes, Step, draw_each

# Convolutions omit the smallest weights of a kernel, up to this sum. The result changes by at most 0.06
# grey levels, and an anisotropic Gaussian loses half of its weights.
_NEGLIGIBLE = 1e-4
# OpenCV filters directly, in time proportional to the nonzero weights, if the kernel's box has fewer than 130 entries;
# otherwise it uses a DFT. At 512 x 512 px, direct filtering takes 0.03 ms per weight, a DFT
# 12-17 ms.
_DIRECT_ENTRIES = 129
_DFT_WEIGHTS = 450  # with more nonzero weights, the DFT is faster

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
    """Blur `image` by a kernel that sums to 1; borders are mirrored about the outermost pixels."""
    rows, columns = kernel.sum(axis=1), kernel.sum(axis=0)
    if np.abs(kernel - np.outer(rows, columns)).sum() < _NEGLIGIBLE:  # separable
        return _image(cv2.sepFilter2D(image, -1, _line(columns), _line(rows), borderType=cv2.BORDER_REFLECT_101))
    weights = _without_negligible(kernel)
    if np.count_nonzero(weights) > _DFT_WEIGHTS:
        return _image(cv2.filter2D(image, -1, weights, borderType=cv2.BORDER_REFLECT_101))
    return _convolve_in_bands(image, weights)


def _without_negligible(weights: Kernel) -> NDArray[np.float32]:
    """Set the smallest weights to 0 and restore the sum. Equal weights are treated alike, to keep kernels centred."""
    magnitudes = np.sort(np.abs(weights), axis=None)
    threshold = magnitudes[np.searchsorted(np.cumsum(magnitudes), _NEGLIGIBLE)]
    kept = np.where(np.abs(weights) < threshold, 0, weights)
    return np.asarray(kept / kept.sum(), dtype=np.float32)


def _line(weights: Kernel) -> NDArray[np.float32]:
    """Return a symmetric 1-D kernel without negligible weights at its ends."""
    line = _without_negligible(weights)
    ends = int(np.flatnonzero(line)[0])
    return line[ends : len(line) - ends]


def _convolve_in_bands(image: Image, kernel: NDArray[np.float32]) -> Image:
    """Convolve by bands of the kernel's rows, each small enough for OpenCV's direct filter, and add the results."""
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
    """Return (top, bottom, left, right) of bands that cover all weights, each as high as the direct filter allows."""
    boxes: list[tuple[int, int, int, int]] = []
    for row in np.flatnonzero(kernel.any(axis=1)).tolist():
        nonzero = np.flatnonzero(kernel[row]).tolist()
        box = row, row + 1, nonzero[0], nonzero[-1] + 1
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


_UNIFORM = Categorical({"sigma": 1.0}, "what is drawn uniformly: sigma, or its square", ("sigma", "variance"))
_BLUR: dict[str, Setting] = {
    "kernel": Categorical(_KERNELS, "shape", tuple(_KERNELS)),
    "size": _SIZE,
    "sigma": Uniform(
        (0.2, 3.0),
        "standard deviation in px of the image at this step; drawn twice for an anisotropic kernel",
        0.05,
        25,
    ),
    "beta_generalized": Uniform(
        (0.5, 4.0), "exponent of generalized Gaussians: 1 is Gaussian, above 1 is flatter", 0.1, 10
    ),
    "beta_plateau": Uniform((1.0, 2.0), "exponent of plateaus: the higher, the steeper their edges", 0.1, 10),
    "uniform": _UNIFORM,
}


def _draw_blur(values: Settings, rng: KeyedRng, sizes: Sizes) -> Parameters:
    """Draw a type of kernel and its parameters, from Real-ESRGAN's distributions."""
    kernel, size = (_BLUR[name].draw(values[name], rng) for name in ("kernel", "size"))
    by_variance = _UNIFORM.draw_added(values["uniform"], rng) == "variance"
    sigma = _draw_sigma(values["sigma"], by_variance, rng)
    drawn = {"kernel": kernel, "size": size, "sigma": sigma}
    if kernel.endswith("anisotropic"):
        drawn["sigma"] = [sigma, _draw_sigma(values["sigma"], by_variance, rng)]
        drawn["rotation"] = rng.uniform(-math.pi, math.pi)
    if kernel.startswith("generalized"):
        drawn["beta"] = _draw_beta(values["beta_generalized"], rng)
    if kernel.startswith("plateau"):
        drawn["beta"] = _draw_beta(values["beta_plateau"], rng)
    return drawn


def _draw_sigma(ends: tuple[float, float], by_variance: bool, rng: KeyedRng) -> float:
    low, high = ends
    return round(math.sqrt(rng.uniform(low**2, high**2)), 6) if by_variance else rng.uniform(low, high)


def _draw_beta(ends: tuple[float, float], rng: KeyedRng) -> float:
    """Draw values below and above 1 equally often, if the range includes both."""
    low, high = ends
    if low < 1 < high:
        low, high = (low, 1) if rng.chance(0.5) else (1, high)
    return rng.uniform(low, high)


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
    "cutoff": Uniform(
        (0.628319, 3.141593), "cutoff frequency in radians per px; at least pi/3 for kernels below 13 px", 0.1, 3.141593
    ),
}
_MIN_CUTOFF_OF_SMALL, _SMALL_PX = math.pi / 3, 13


def _draw_sinc(values: Settings, rng: KeyedRng, sizes: Sizes) -> Parameters:
    """Draw as Real-ESRGAN does: cutoffs below pi/3 only for large kernels, because small ones would ring everywhere."""
    size = _SIZE.draw(values["size"], rng)
    low, high = values["cutoff"]
    return {
        "size": size,
        "cutoff": rng.uniform(min(max(low, _MIN_CUTOFF_OF_SMALL), high) if size < _SMALL_PX else low, high),
    }


_MOTION: dict[str, Setting] = {
    "length": Uniform((3.0, 15.0), "length of the path in px", 1, 100),
    "angle": Uniform((0.0, 180.0), "direction in degrees: 0 is horizontal, 90 vertical", -360, 360),
}
_LENS: dict[str, Setting] = {"radius": Uniform((1.0, 4.0), "radius of the blur disk in px", 0.1, 50)}

BLUR = Step("Gaussian, generalized Gaussian and plateau blur", _BLUR, _draw_blur, _apply_blur, added=("uniform",))
SINC = Step(
    "ideal low-pass filter, with ringing and overshoot",
    _SINC,
    _draw_sinc,
    lambda image, parameters: convolve(image, kernels.sinc(parameters["size"], parameters["cutoff"])),
)
MOTION_BLUR = Step(
    "motion blur along a straight line",
    _MOTION,
    draw_each(_MOTION),
    lambda image, parameters: convolve(image, kernels.motion(parameters["length"], parameters["angle"])),
)
LENS_BLUR = Step(
    "defocus blur",
    _LENS,
    draw_each(_LENS),
    lambda image, parameters: convolve(image, kernels.disk(parameters["radius"])),
)
