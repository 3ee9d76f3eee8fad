"""Compression steps: JPEG, WebP, chroma subsampling and banding."""

import io
from functools import lru_cache

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image as Pillow

from shardgen.degradation.rng import KeyedRng
from shardgen.degradation.settings import Categorical, Integers, Setting
from shardgen.degradation.step import Image, Parameters, Settings, Sizes, Step, draw_each
from srshards.imaging.pixels import to_pixels

_UPSAMPLING = Categorical(
    {"smooth": 1.0}, "chroma in the decoder: smooth interpolates it, plain repeats it", ("plain", "smooth")
)
_JPEG: dict[str, Setting] = {
    "quality": Integers((30, 95), "libjpeg quality", 1, 100),
    "subsampling": Categorical({"4:2:0": 1.0}, "chroma subsampling", ("4:2:0", "4:2:2", "4:4:4")),
    "upsampling": _UPSAMPLING,
}


def _draw_jpeg(values: Settings, rng: KeyedRng, sizes: Sizes) -> Parameters:
    """Draw all parameters, without `upsampling` where only the default is possible, as before it was added."""
    drawn = {name: _JPEG[name].draw(values[name], rng) for name in ("quality", "subsampling")}
    if values["upsampling"] != _UPSAMPLING.default:
        drawn["upsampling"] = _UPSAMPLING.draw_added(values["upsampling"], rng)
    return drawn


def _apply_jpeg(image: Image, parameters: Parameters) -> Image:
    """Encode and decode by libjpeg-turbo's integer DCTs, which give equal bits on every CPU.

    Below quality 96, TurboJPEG always encodes by the fast DCT. The others are accurate.
    """
    subsampling = parameters["subsampling"].replace(":", "")
    file = simplejpeg.encode_jpeg(to_pixels(image), parameters["quality"], "RGB", subsampling)
    is_plain = parameters.get("upsampling") == "plain"
    return np.asarray(simplejpeg.decode_jpeg(file, "RGB", fastupsample=is_plain), dtype=np.float32)


_WEBP: dict[str, Setting] = {"quality": Integers((30, 95), "libwebp quality", 1, 100)}


def _apply_webp(image: Image, parameters: Parameters) -> Image:
    stream = io.BytesIO()
    # Pillow, because OpenCV cannot select libwebp's fastest method, which takes a fifth of the default's time.
    Pillow.fromarray(to_pixels(image)).save(stream, "WEBP", quality=parameters["quality"], method=0)
    pixels = cv2.imdecode(np.frombuffer(stream.getbuffer(), np.uint8), cv2.IMREAD_COLOR_RGB)
    return np.asarray(pixels, dtype=np.float32)


# Pixels that share a colour: height x width.
_BLOCKS = {"4:2:0": (2, 2), "4:2:2": (1, 2), "4:1:1": (1, 4)}
_CHROMA: dict[str, Setting] = {
    "subsampling": Categorical({"4:2:0": 1.0}, "chroma subsampling", tuple(_BLOCKS)),
}


def _apply_chroma(image: Image, parameters: Parameters) -> Image:
    """Average chroma over blocks and interpolate it linearly; BT.601 luma is unchanged.

    Cb and Cr are linear in R - Y, G - Y and B - Y, so blurring these is equivalent: Y + blur(RGB - Y).
    """
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    chroma = image - luma[..., None]
    height, width = luma.shape
    rows, columns = _BLOCKS[parameters["subsampling"]]
    # The last block is padded with the last pixel, as in a JPEG file.
    padded = cv2.copyMakeBorder(chroma, 0, -height % rows, 0, -width % columns, cv2.BORDER_REPLICATE)
    size = (padded.shape[1], padded.shape[0])
    subsampled = cv2.resize(padded, (size[0] // columns, size[1] // rows), interpolation=cv2.INTER_AREA)
    smooth = cv2.resize(subsampled, size, interpolation=cv2.INTER_LINEAR)[:height, :width]
    return np.asarray(smooth + luma[..., None], dtype=np.float32)


_BANDING: dict[str, Setting] = {
    "levels": Integers((8, 64), "levels per channel", 2, 256),
    "dither": Categorical(
        {"none": 0.8, "ordered": 0.1, "noise": 0.1}, "dithering of the levels", ("none", "ordered", "noise")
    ),
}


def _draw_banding(values: Settings, rng: KeyedRng, sizes: Sizes) -> Parameters:
    drawn = {name: setting.draw(values[name], rng) for name, setting in _BANDING.items()}
    return {**drawn, "seed": rng.seed()} if drawn["dither"] == "noise" else drawn


def _apply_banding(image: Image, parameters: Parameters) -> Image:
    """Round each channel to evenly spaced levels from 0 to 255, optionally with dithering."""
    step = np.float32(255 / (parameters["levels"] - 1))
    level = np.clip(image, 0, 255) / step
    if parameters["dither"] == "noise":
        random = np.random.Generator(np.random.SFC64(parameters["seed"]))
        level += random.random(image.shape, dtype=np.float32)
        level -= 0.5
    elif parameters["dither"] == "ordered":
        height, width = image.shape[:2]
        tiles = np.tile(_bayer_thresholds(), (-(-height // 8), -(-width // 8)))[:height, :width]
        level += tiles[..., None]
    return np.asarray(np.clip(np.rint(level) * step, 0, 255))


@lru_cache
def _bayer_thresholds() -> NDArray[np.float32]:
    """Return Bayer's 8 x 8 matrix (1973) as offsets from -0.5 to 0.5 with mean 0."""
    matrix = np.zeros((1, 1))
    for _ in range(3):
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    return ((matrix + 0.5) / 64 - 0.5).astype(np.float32)


JPEG = Step("JPEG compression", _JPEG, _draw_jpeg, _apply_jpeg, added=("upsampling",))
WEBP = Step("lossy WebP compression", _WEBP, draw_each(_WEBP), _apply_webp)
CHROMA_SUBSAMPLING = Step("reduced chroma resolution", _CHROMA, draw_each(_CHROMA), _apply_chroma)
BANDING = Step("fewer grey levels per channel", _BANDING, _draw_banding, _apply_banding)
