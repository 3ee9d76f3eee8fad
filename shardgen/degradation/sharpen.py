"""Sharpening."""

import cv2
import numpy as np

from shardgen.degradation.settings import Integers, Setting, Uniform
from shardgen.degradation.step import Image, Parameters, Step, draw_each


def usm(image: Image, weight: float, radius: int, threshold: float) -> Image:
    """Unsharp masking with a soft mask, as Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833) sharpens its HR images.

    What a Gaussian takes away is added once more, `weight` times, where that is more than `threshold` grey levels; the
    mask of these places is blurred by the same Gaussian. Its edge is `radius` px, or one more to be odd.
    """
    edge = radius | 1
    line = cv2.getGaussianKernel(edge, 0, cv2.CV_32F)  # sigma = 0.15 edge + 0.35: OpenCV's rule
    change = image - cv2.sepFilter2D(image, -1, line, line)
    mask = (np.abs(change) > threshold).astype(np.float32)
    result = np.asarray(cv2.sepFilter2D(mask, -1, line, line), dtype=np.float32)
    # In place: new arrays of this size cost as much as the arithmetic.
    change *= np.float32(weight)
    change += image
    np.clip(change, 0, 255, out=change)
    change -= image
    result *= change
    result += image
    return result


_SHARPEN: dict[str, Setting] = {
    "weight": Uniform((0.5, 0.5), "how much of the difference to a blurred image is added", 0, 5),
    "radius": Integers((50, 50), "edge of the Gaussian in px; its standard deviation is 0.15 of it", 3, 101),
    "threshold": Uniform((10.0, 10.0), "differences up to this many grey levels stay", 0, 255),
}


def _apply(image: Image, parameters: Parameters) -> Image:
    return usm(image, parameters["weight"], parameters["radius"], parameters["threshold"])


SHARPEN = Step("unsharp masking", _SHARPEN, draw_each(_SHARPEN), _apply)
