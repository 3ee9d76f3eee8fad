"""PNG by OpenCV, the faster of the usual decoders. OpenCV is looked up late: not every environment has it."""

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.peers.task import Pixels


@cache
def opencv() -> Any:
    """OpenCV without threads of its own: the workers are the threads."""
    cv2 = import_module("cv2")
    cv2.setNumThreads(0)
    return cv2


def encode_png(image: Pixels) -> bytes:
    """PNG with OpenCV's defaults of an H x W x 3 RGB image."""
    cv2 = opencv()
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done
    return bytes(data)


def decode_png(data: Any) -> Pixels:
    """H x W x 3 uint8 RGB from anything that has the bytes of a PNG."""
    cv2 = opencv()
    image: Pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return image
