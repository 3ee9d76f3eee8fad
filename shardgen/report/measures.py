"""Measures of an HR image's luma, to find unusual images."""

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
_LEAST_VARIANCE = 1e-2  # so that the sharpness of a uniform image is finite
_HASHED_PX = 32
_NO_MATRIX = np.empty((0, 0), np.float32)


def brightness(grey: Luma) -> float:
    """Return the mean, from 0 (black) to 1 (white)."""
    return float(cv2.mean(grey)[0]) / 255


def sharpness(grey: Luma) -> float:
    """Return log10 of the variance of the Laplacian (3 x 3, four neighbours) in grey levels squared; at least -2.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative study", ICPR 2000. It increases
    with detail and with noise, so it is comparable only between similar images, not between a portrait and a sky.
    """
    _, deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_32F))
    return math.log10(max(float(deviation[0, 0]) ** 2, _LEAST_VARIANCE))


def flatness(grey: Luma) -> float:
    """Return the fraction of blocks of 16 x 16 px with a standard deviation below 2 grey levels.

    2 levels are about the noise of a good camera. Partial blocks are ignored; an image smaller than a block is one.
    """
    edge = min(FLAT_BLOCK_PX, *grey.shape)
    rows, columns = grey.shape[0] // edge, grey.shape[1] // edge
    blocks = grey[: rows * edge, : columns * edge] - np.float32(128)  # so that squares are precise in float32
    means, squares = (cv2.resize(field, (columns, rows), interpolation=cv2.INTER_AREA) for field in (blocks, blocks**2))
    return float(np.mean(squares - means**2 < FLAT_BELOW_LEVELS**2))


def aliased_part(grey: Luma, scale: int, method: str) -> Luma:
    """Return the part of LR's luma that is aliased, in grey levels (H/scale x W/scale); zero without aliasing.

    It is the difference between HR and HR without frequencies above LR's Nyquist limit, downsampled by LR's method.
    The frequencies are those of the DCT; of N per axis, the lowest N/scale are kept. Both operations are linear in rows
    and columns, so they are computed as matrix products, without rounding. H and W must be multiples of `scale`.
    """
    if not MIN_SCALE <= scale <= MAX_SCALE or grey.shape[0] % scale or grey.shape[1] % scale:
        raise ValueError(f"expected a scale of 2 to 8 and multiples of it, got {scale} and {grey.shape}")
    # OpenCV's product, because BLAS would start threads that compete with this function's callers.
    rows = cv2.gemm(_low_frequencies(grey.shape[0], scale, method), grey, 1, _NO_MATRIX, 0)
    low = cv2.gemm(rows, _low_frequencies(grey.shape[1], scale, method), 1, _NO_MATRIX, 0, flags=cv2.GEMM_2_T)
    return np.asarray(_downsample(grey, grey.shape[0] // scale, grey.shape[1] // scale, method) - low, dtype=np.float32)


def aliasing(grey: Luma, scale: int, method: str) -> float:
    """Return the RMS of `aliased_part` in grey levels."""
    return math.sqrt(float(np.mean(np.square(aliased_part(grey, scale, method), dtype=np.float64))))


def _downsample(grey: Luma, height: int, width: int, method: str) -> Luma:
    """Downsample like `degrade.downsample`, but without rounding or, for `matlab`, mirrored borders (Pillow)."""
    if method == "matlab":
        return np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    return np.asarray(cv2.resize(grey, (width, height), interpolation=KERNELS[method]), dtype=np.float32)


@functools.lru_cache(maxsize=16)
def _low_frequencies(size: int, scale: int, method: str) -> Luma:
    """Return a size/scale x size matrix that downsamples the lowest size/scale frequencies of a column of pixels."""
    kept = size // scale
    centre, frequency = np.arange(size) + 0.5, np.arange(kept)[:, None]
    cosines = np.cos(math.pi / size * frequency * centre) * math.sqrt(2 / size)
    cosines[0] /= math.sqrt(2)
    return np.asarray(
        _downsample(np.eye(size, dtype=np.float32), kept, size, method) @ cosines.T @ cosines, dtype=np.float32
    )


def image_hash(grey: Luma) -> int:
    """Return a 64-bit perceptual hash, robust to recompression, resizing and small changes of brightness.

    Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010: luma at 32 x 32 px (area
    averaging), DCT-II, and one bit for each coefficient in rows and columns 1 to 8: whether it is above their median.
    The most significant bit is the first coefficient of the first row.
    """
    small = cv2.resize(grey, (_HASHED_PX, _HASHED_PX), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[1:9, 1:9]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")
