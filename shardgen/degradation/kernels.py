"""Blur kernels: square float64 arrays with an odd edge, centred, that sum to 1.

The Gaussian families are those of Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833, section 3.2 and appendix).
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Kernel = NDArray[np.float64]

# The midpoint rule on a periodic integrand is exact to rounding if the number of nodes per period, four times this,
# exceeds the argument by about 50. The largest argument is pi times half the diagonal of a 51 px kernel: 111.
_J1_NODES = 48


def gaussian(size: int, sigma_x: float, sigma_y: float, rotation: float) -> Kernel:
    """Return exp(-q/2), with q the squared distance in sigmas. The x axis is rotated by `rotation` rad towards y."""
    return _normalized(np.exp(-0.5 * _squared_sigmas(size, sigma_x, sigma_y, rotation)))


def generalized_gaussian(size: int, sigma_x: float, sigma_y: float, rotation: float, beta: float) -> Kernel:
    """Return exp(-q^beta / 2): peaked for beta below 1, flat-topped for beta above 1."""
    return _normalized(np.exp(-0.5 * _squared_sigmas(size, sigma_x, sigma_y, rotation) ** beta))


def plateau(size: int, sigma_x: float, sigma_y: float, rotation: float, beta: float) -> Kernel:
    """Return 1 / (1 + q^beta): flat-topped with a long tail."""
    return _normalized(1 / (1 + _squared_sigmas(size, sigma_x, sigma_y, rotation) ** beta))


def sinc(size: int, cutoff: float) -> Kernel:
    """Return the ideal low-pass filter for `cutoff` rad per px (pi: Nyquist) in all directions, cropped to the kernel.

    It is cutoff J1(cutoff r) / (2 pi r), the inverse Fourier transform of a disk, which causes ringing.
    """
    radius = np.sqrt(_quadrant_of_squares(size))
    centre = cutoff**2 / (4 * math.pi)
    radius[0, 0] = 1
    quadrant = cutoff * bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    quadrant[0, 0] = centre
    half = np.concatenate((quadrant[:0:-1], quadrant))
    return _normalized(np.concatenate((half[:, :0:-1], half), axis=1))


def disk(radius: float) -> Kernel:
    """Return a uniform disk of `radius` px, the image of a point through a defocused lens; its edge is 1 px soft."""
    x, y = _grid(2 * math.ceil(radius + 0.5) - 1)
    return _normalized(np.clip(radius + 0.5 - np.hypot(x, y), 0, 1))


def motion(length: float, angle: float) -> Kernel:
    """Return a straight line of `length` px, 1 px wide with soft edges, at `angle` degrees: 0 is horizontal."""
    x, y = _grid(2 * math.ceil((length + 1) / 2) - 1)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along = np.abs(cosine * x - sine * y)  # y points down
    across = np.abs(sine * x + cosine * y)
    return _normalized(np.clip((length + 1) / 2 - along, 0, 1) * np.clip(1 - across, 0, 1))


def bessel_j1(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Bessel function J1 for |x| up to 120, accurate to 1e-14.

    By Bessel's integral over a quarter of its period: J1(x) = 2/pi int_0^(pi/2) sin(x sin t) sin t dt.
    """
    sines = np.sin((np.arange(_J1_NODES) + 0.5) * (math.pi / 2 / _J1_NODES))
    return np.asarray(np.sin(x[..., None] * sines) @ sines / _J1_NODES, dtype=np.float64)


def _squared_sigmas(size: int, sigma_x: float, sigma_y: float, rotation: float) -> Kernel:
    """Return x' S^-1 x for the covariance S = U diag(sigma_x^2, sigma_y^2) U', where U rotates by `rotation`."""
    x, y = _grid(size)
    cosine, sine = math.cos(rotation), math.sin(rotation)
    return ((cosine * x + sine * y) / sigma_x) ** 2 + ((cosine * y - sine * x) / sigma_y) ** 2


@lru_cache
def _grid(size: int) -> tuple[Kernel, Kernel]:
    """Return x and y of each px relative to the centre; cached, so do not modify them."""
    line = np.arange(size, dtype=np.float64) - size // 2
    return line[None, :], line[:, None]


def _quadrant_of_squares(size: int) -> Kernel:
    """Return r^2 for the lower right quarter of a kernel, including its centre."""
    line = np.arange(size // 2 + 1, dtype=np.float64) ** 2
    return line[:, None] + line


def _normalized(kernel: Kernel) -> Kernel:
    return np.asarray(kernel / kernel.sum())
