"""PNG by OpenCV, the faster of the usual decoders. OpenCV is imported late, because not every environment has it."""

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.peers.task import Pixels


@cache
def opencv() -> Any:
    """Return OpenCV with its threads disabled."""
    cv2 = import_module("cv2")
    cv2.setNumThreads(0)
    return cv2


def encode_png(image: Pixels) -> bytes:
    """Encode an H x W x 3 uint8 RGB image as PNG with OpenCV's defaults."""
    cv2 = opencv()
    ok, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert ok
    return bytes(data)


def decode_png(data: Any) -> Pixels:
    """Decode a PNG to H x W x 3 uint8 RGB."""
    cv2 = opencv()
    image: Pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return image
