"""Sharpening step: unsharp masking."""

import cv2
import numpy as np

from shardgen.degradation.settings import Integers, Setting, Uniform
from shardgen.degradation.step import Image, Parameters, Step, draw_each


def usm(image: Image, weight: float, radius: int, threshold: float) -> Image:
    """Sharpen by unsharp masking with a soft mask, as Real-ESRGAN does to HR (Wang et al. 2021, arXiv 2107.10833).

    Adds `weight` times (image - blurred image) where that difference exceeds `threshold` grey levels. The mask of these
    pixels is blurred by the same Gaussian, whose kernel has an edge of `radius` px, plus one if even.
    """
    edge = radius | 1
    line = cv2.getGaussianKernel(edge, 0, cv2.CV_32F)  # OpenCV's default sigma: 0.15 edge + 0.35
    change = image - cv2.sepFilter2D(image, -1, line, line)
    mask = (np.abs(change) > threshold).astype(np.float32)
    result = np.asarray(cv2.sepFilter2D(mask, -1, line, line), dtype=np.float32)
    # In place, because allocating arrays of this size takes as long as the arithmetic.
    change *= np.float32(weight)
    change += image
    np.clip(change, 0, 255, out=change)
    change -= image
    result *= change
    result += image
    return result


_SHARPEN: dict[str, Setting] = {
    "weight": Uniform((0.5, 0.5), "multiple of the difference to the blurred image that is added", 0, 5),
    "radius": Integers(
        (50, 50), "edge of the Gaussian kernel in px; its standard deviation is 0.15 times that", 3, 101
    ),
    "threshold": Uniform((10.0, 10.0), "differences up to this many grey levels are unchanged", 0, 255),
}


def _apply(image: Image, parameters: Parameters) -> Image:
    return usm(image, parameters["weight"], parameters["radius"], parameters["threshold"])


SHARPEN = Step("unsharp masking", _SHARPEN, draw_each(_SHARPEN), _apply)
