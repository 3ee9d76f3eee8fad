"""What an HR image is like, in numbers by which the odd ones of many are found. All of them are of its luma."""

import functools
import math

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srshards.format import MAX_SCALE, MIN_SCALE
from srshards.imaging.resample import KERNELS

Luma = NDArray[np.float32]  # H x W, grey levels from 0 to 255

FLAT_BLOCK_PX = 16
FLAT_BELOW_LEVELS = 2.0
_LEAST_VARIANCE = 1e-2  # so that a picture of one colour has a sharpness too
_HASHED_PX = 32
_NOTHING = np.empty((0, 0), np.float32)


def brightness(grey: Luma) -> float:
    """The mean, from 0 (black) to 1 (white)."""
    return float(cv2.mean(grey)[0]) / 255


def sharpness(grey: Luma) -> float:
    """log10 of the variance of the Laplacian (3 x 3, four neighbours), grey levels squared; -2 and more.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative study", ICPR 2000. It grows with
    detail and with noise, so it tells pictures of one kind apart, and not a soft portrait from a sharp one of the sky.
    """
    _, deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_32F))
    return math.log10(max(float(deviation[0, 0]) ** 2, _LEAST_VARIANCE))


def flatness(grey: Luma) -> float:
    """The share of its blocks of 16 x 16 px in which grey levels deviate by less than 2: what has nothing to restore.

    2 levels are about the noise of a good camera. Whole blocks only; an image smaller than one is one block.
    """
    edge = min(FLAT_BLOCK_PX, *grey.shape)
    rows, columns = grey.shape[0] // edge, grey.shape[1] // edge
    whole = grey[: rows * edge, : columns * edge] - np.float32(128)  # so that squares are small enough for float32
    means, squares = (cv2.resize(one, (columns, rows), interpolation=cv2.INTER_AREA) for one in (whole, whole**2))
    return float(np.mean(squares - means**2 < FLAT_BELOW_LEVELS**2))


def aliases(grey: Luma, scale: int, method: str) -> Luma:
    """What of LR's luma comes from detail that LR is too small for, in grey levels: H/scale x W/scale, zero at best.

    It is the difference between HR and HR without its frequencies above LR's Nyquist limit, shrunk as LR was:
    frequencies of the DCT, of which an image of N px keeps the lowest N/scale. Both are sums of rows and columns, so
    products of matrices do it, before anything is rounded. H and W must be multiples of `scale`.
    """
    if not MIN_SCALE <= scale <= MAX_SCALE or grey.shape[0] % scale or grey.shape[1] % scale:
        raise ValueError(f"expected a scale of 2 to 8 and multiples of it, got {scale} and {grey.shape}")
    # OpenCV's product, because BLAS starts threads for it that get in each other's way.
    rows = cv2.gemm(_shrinking_low(grey.shape[0], scale, method), grey, 1, _NOTHING, 0)
    low = cv2.gemm(rows, _shrinking_low(grey.shape[1], scale, method), 1, _NOTHING, 0, flags=cv2.GEMM_2_T)
    return np.asarray(_shrunk(grey, grey.shape[0] // scale, grey.shape[1] // scale, method) - low, dtype=np.float32)


def aliasing(grey: Luma, scale: int, method: str) -> float:
    """The root of the mean square of `aliases`, in grey levels."""
    return math.sqrt(float(np.mean(np.square(aliases(grey, scale, method), dtype=np.float64))))


def _shrunk(grey: Luma, height: int, width: int, method: str) -> Luma:
    """As `degrade.shrink`, but for rounding. (Pillow's bicubic is that of the papers, except that it has no mirror.)"""
    if method == "matlab":
        return np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    return np.asarray(cv2.resize(grey, (width, height), interpolation=KERNELS[method]), dtype=np.float32)


@functools.lru_cache(maxsize=16)
def _shrinking_low(size: int, scale: int, method: str) -> Luma:
    """A matrix of size/scale x size that shrinks the lowest size/scale frequencies of a column of pixels."""
    kept = size // scale
    place, frequency = np.arange(size) + 0.5, np.arange(kept)[:, None]
    cosines = np.cos(math.pi / size * frequency * place) * math.sqrt(2 / size)
    cosines[0] /= math.sqrt(2)
    return np.asarray(
        _shrunk(np.eye(size, dtype=np.float32), kept, size, method) @ cosines.T @ cosines, dtype=np.float32
    )


def image_hash(grey: Luma) -> int:
    """64 bits that hardly change when a picture is saved again, resized or made a little brighter.

    Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010: its luma at 32 x 32 px (averaged
    areas), DCT-II, and of the coefficients in rows and columns 1 to 8 which are above their median. The first of the
    first row is the most significant bit.
    """
    small = cv2.resize(grey, (_HASHED_PX, _HASHED_PX), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[1:9, 1:9]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")
