"""Size and cost of one codec, in one process with one thread; prints one line of JSON.

    python -m benchmarks.codec_run IMAGES_NPY CODEC CROPS

`IMAGES_NPY` contains N x H x W x 3 uint8 images. The first of them is encoded and decoded first as a warm-up. Crops are
the same for all codecs. All results are compared with the images.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any, TypeVar

import numpy as np

from srshards.imaging import codec, tlc
from srshards.imaging.codec import NPY_HEADER_BYTES
from srshards.imaging.pixels import Pixels

_CROP_PX = 192

_T = TypeVar("_T")


def main(path: Path, name: str, crops: int) -> dict[str, Any]:
    """Return the size relative to the pixels, and the CPU times per image or crop in ms."""
    images = np.load(path)
    codec.decode(name, _encode(name, images[0]))
    encode_ms, contents = _timed(lambda image: _encode(name, image), list(images))
    decode_ms, decoded = _timed(lambda content: codec.decode(name, content), contents)
    assert all(map(np.array_equal, decoded, images))
    rng = np.random.default_rng(0)
    edge = min(_CROP_PX, *images.shape[1:3])
    tops, lefts = (rng.integers(0, limit - edge + 1, (crops, len(images))) for limit in images.shape[1:3])
    out = np.empty((edge, edge, 3), np.uint8)
    seconds = 0.0
    for number, content in [*enumerate(contents)] * crops:
        top, left = tops.flat[number], lefts.flat[number]
        start_s = process_time()
        _crop(name, content, images.shape[1:], int(top), int(left), out)
        seconds += process_time() - start_s
        assert np.array_equal(out, images[number, top : top + edge, left : left + edge])
    return {
        "size": round(sum(map(len, contents)) / images.nbytes, 4),
        "encode_ms": encode_ms,
        "decode_ms": decode_ms,
        "crop_ms": seconds / (crops * len(contents)) * 1e3,
    }


def _encode(name: str, image: Pixels) -> bytes:
    return b"".join(codec.encode(name, image))


def _crop(name: str, content: bytes, shape: tuple[int, ...], top: int, left: int, out: Pixels) -> None:
    height, width = out.shape[:2]
    if name == "tlc":
        tlc.decode_crop(content, top, left, out)
    elif name == "npy":  # as the loader reads it, without decoding
        image = np.frombuffer(content, np.uint8, offset=NPY_HEADER_BYTES).reshape(shape)
        out[:] = image[top : top + height, left : left + width]
    else:
        out[:] = codec.decode(name, content)[top : top + height, left : left + width]


def _timed(function: Callable[[Any], _T], items: list[Any]) -> tuple[float, list[_T]]:
    """Return the CPU time per item in ms, and the results."""
    start_s = process_time()
    results = [function(item) for item in items]
    return (process_time() - start_s) / len(items) * 1e3, results


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
