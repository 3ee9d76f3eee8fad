"""Noise. Every field of noise comes from a seed that is written down; results are clipped to 0-255.

Gaussian and Poisson noise are drawn as by Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833), correlated Gaussian noise
as by BSRGAN (Zhang et al. 2021, arXiv 2103.14006), camera noise after Brooks et al. 2019, "Unprocessing Images for
Learned Raw Denoising" (arXiv 1811.11127).
"""

import math
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from shardgen.degradation.rng import Dice
from shardgen.degradation.settings import Categorical, Setting, Uniform
from shardgen.degradation.step import Image, Parameters, Settings, Sizes, Step
from srshards.imaging.pixels import to_pixels

Plane = NDArray[np.float32]


def _generator(parameters: Parameters) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(parameters["seed"]))


def _clipped(image: Image) -> Image:
    """In place."""
    return np.clip(image, 0, 255, out=image)


def _float32(array: object) -> NDArray[np.float32]:
    return np.asarray(array, dtype=np.float32)


# ---- Gaussian

_GAUSSIAN: dict[str, Setting] = {
    "sigma": Uniform((1.0, 30.0), "standard deviation in grey levels", 0, 255),
    "kind": Categorical(
        {"colour": 0.6, "grey": 0.4},
        "colour: each channel for itself; grey: the same for all; correlated: in between, up to sigma's high end",
        ("colour", "grey", "correlated"),
    ),
}


def _draw_gaussian(values: Settings, dice: Dice, sizes: Sizes) -> Parameters:
    kind = dice.choice(values["kind"])
    if kind == "correlated":
        return {"kind": kind, "covariance": _draw_covariance(values["sigma"][1], dice), "seed": dice.seed()}
    return {"kind": kind, "sigma": dice.uniform(*values["sigma"]), "seed": dice.seed()}


def _draw_covariance(sigma: float, dice: Dice) -> list[list[float]]:
    """BSRGAN's sigma^2 |U' D U|: U a basis of a random matrix' columns, D random and diagonal; 3 x 3."""
    basis = np.linalg.svd([[dice.uniform(0, 1) for _ in range(3)] for _ in range(3)])[0]
    variances = [dice.uniform(0, 1) for _ in range(3)]
    covariance = sigma**2 * np.abs(basis.T @ np.diag(variances) @ basis)
    return [[round(float(value), 6) for value in row] for row in covariance]


def _apply_gaussian(image: Image, parameters: Parameters) -> Image:
    height, width = image.shape[:2]
    kind = parameters["kind"]
    channels = 1 if kind == "grey" else 3
    noise = _generator(parameters).standard_normal((height, width, channels), dtype=np.float32)
    if kind == "correlated":
        noise = _float32(cv2.transform(noise, _square_root(np.array(parameters["covariance"]))))
    else:
        noise *= np.float32(parameters["sigma"])
    return _clipped(image + noise)


def _square_root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric matrix whose square is `covariance`; the only one that is the same with every eigensolver."""
    values, vectors = np.linalg.eigh(covariance)
    root: NDArray[np.float64] = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T  # rounding may leave -1e-6
    return root


# ---- Poisson

_PIECE = 1 << 15  # elements that the processor's cache holds with all that is made of them

_POISSON: dict[str, Setting] = {
    "strength": Uniform((0.05, 3.0), "how many times as strong as photons would make it", 0, 10),
    "kind": Categorical(
        {"colour": 0.6, "grey": 0.4}, "colour: each channel for itself; grey: the luma's for all", ("colour", "grey")
    ),
}


def _draw_poisson(values: Settings, dice: Dice, sizes: Sizes) -> Parameters:
    drawn = {name: setting.draw(values[name], dice) for name, setting in _POISSON.items()}
    return {**drawn, "seed": dice.seed()}


def _apply_poisson(image: Image, parameters: Parameters) -> Image:
    """White is 2^n photons, where 2^n is the number of grey levels in use, rounded up."""
    source = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] if parameters["kind"] == "grey" else image
    levels = to_pixels(_float32(source))
    distinct = int(np.count_nonzero(np.bincount(levels.ravel())))
    photons = 1 << (distinct - 1).bit_length()
    noise = poisson_counts(levels, photons, parameters["seed"]) * np.float32(255 / photons)
    noise -= levels
    noise *= np.float32(parameters["strength"])
    return _clipped(image + noise)


def poisson_counts(levels: NDArray[np.uint8], photons: int, seed: int) -> Plane:
    """Poisson counts of mean level / 255 * photons (1-256) for each element of `levels`.

    Walker's alias method (1977) with a table for each level, eight times as fast as NumPy: a random word's high bits
    name a column, and its low bits decide between the column's own count and its alias. Exact to 2^-32 per count.
    """
    table, bits = _alias_table(photons)
    low = np.uint32((1 << bits) - 1)
    random = np.random.SFC64(seed)
    flat = levels.ravel()
    counts = np.empty(flat.size, np.float32)
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE].astype(np.uint32)
        words = random.random_raw((piece.size + 1) // 2).view(np.uint32)[: piece.size]
        column = words >> np.uint32(bits)
        entry = table.take(piece * np.uint32(table.shape[1]) + column)
        own = (words & low) < (entry & low)
        counts[start : start + _PIECE] = np.where(own, column, entry >> np.uint32(bits))
    return counts.reshape(levels.shape)


@lru_cache
def _alias_table(photons: int) -> tuple[NDArray[np.uint32], int]:
    """256 rows, one per level, of alias << bits | threshold; and `bits`, how many the threshold has.

    A row shares its distribution out evenly over 2^(32 - bits) columns: the poorest column is filled up by the richest,
    again and again. The counts that the columns cannot name have a probability below 1e-13.
    """
    bits = 32 - math.ceil(math.log2(photons + 8 * math.sqrt(photons) + 8))
    count = np.arange(1 << (32 - bits))
    log_factorial = np.array([math.lgamma(number + 1) for number in count])
    mean = np.arange(1, 256)[:, None] * (photons / 255)
    share = np.zeros((256, len(count)))
    share[0, 0] = 1
    share[1:] = np.exp(count * np.log(mean) - mean - log_factorial)
    share *= len(count) / share.sum(axis=1, keepdims=True)

    threshold = np.ones_like(share)
    alias = np.tile(count.astype(np.uint32), (256, 1))
    for _ in count:
        poorest, richest = share.argmin(axis=1), share.argmax(axis=1)
        (rows,) = np.nonzero(share[np.arange(256), poorest] < 1)
        poor, rich = (rows, poorest[rows]), (rows, richest[rows])
        threshold[poor] = share[poor]
        alias[poor] = richest[rows]
        share[rich] -= 1 - share[poor]
        share[poor] = 1
    scaled = np.minimum(np.rint(threshold * (1 << bits)), (1 << bits) - 1).astype(np.uint32)
    return alias << np.uint32(bits) | scaled, bits


# ---- salt and pepper

_SALT: dict[str, Setting] = {
    "share": Uniform((0.001, 0.02), "share of the pixels that are hit", 0, 1),
    "salt": Uniform((0.5, 0.5), "share of those that turn white; the others turn black", 0, 1),
}


def _draw_salt(values: Settings, dice: Dice, sizes: Sizes) -> Parameters:
    drawn = {name: setting.draw(values[name], dice) for name, setting in _SALT.items()}
    return {**drawn, "seed": dice.seed()}


def _apply_salt(image: Image, parameters: Parameters) -> Image:
    share = parameters["share"]
    fate = _generator(parameters).random(image.shape[:2], dtype=np.float32)
    noisy = image.copy()
    noisy[fate < share] = 0
    noisy[fate < share * parameters["salt"]] = 255
    return _clipped(noisy)


# ---- camera


class _Mosaic(NamedTuple):
    """Colours (0 red, 1 green, 2 blue) of the sensor's pixels (0, 0), (0, 1), (1, 0), (1, 1), and its demosaicing."""

    colours: tuple[int, int, int, int]
    demosaic: int


_MOSAICS = {
    "RGGB": _Mosaic((0, 1, 1, 2), cv2.COLOR_BayerRGGB2RGB),
    "GRBG": _Mosaic((1, 0, 2, 1), cv2.COLOR_BayerGRBG2RGB),
    "GBRG": _Mosaic((1, 2, 0, 1), cv2.COLOR_BayerGBRG2RGB),
    "BGGR": _Mosaic((2, 1, 1, 0), cv2.COLOR_BayerBGGR2RGB),
}
_FINE = 16  # steps per grey level in which sRGB is read
_WHITE = 65535  # of the demosaicing

_CAMERA: dict[str, Setting] = {
    "shot": Uniform(
        (2.55, 27.9),
        "standard deviation at white, before white balance, in linear grey levels, drawn evenly on a log scale",
        0.1,
        100,
    ),
}


def _draw_camera(values: Settings, dice: Dice, sizes: Sizes) -> Parameters:
    """Brooks et al.: log read variance = 2.18 log shot variance + 1.2 +- 0.26, white as 1; and their gains."""
    low, high = values["shot"]
    shot = math.exp(dice.uniform(math.log(low), math.log(high)))
    spread = NormalDist(0, 0.26).inv_cdf(dice.uniform(1e-6, 1 - 1e-6))
    read = 255 * math.exp((2.18 * 2 * math.log(shot / 255) + 1.2 + spread) / 2)
    return {
        "shot": round(shot, 6),
        "read": round(read, 6),
        "red_gain": dice.uniform(1.9, 2.4),
        "blue_gain": dice.uniform(1.5, 1.9),
        "mosaic": dice.choice(dict.fromkeys(_MOSAICS, 1.0)),
        "seed": dice.seed(),
    }


def _apply_camera(image: Image, parameters: Parameters) -> Image:
    """sRGB back to what a sensor sees through its colour mosaic, noise, and forward again."""
    mosaic = _MOSAICS[parameters["mosaic"]]
    gains = (parameters["red_gain"], 1.0, parameters["blue_gain"])
    sensor = np.empty(image.shape[:2], np.float32)
    for place, colour in enumerate(mosaic.colours):
        site = np.s_[place // 2 :: 2, place % 2 :: 2]
        level = np.rint(np.clip(image[..., colour][site], 0, 255) * _FINE).astype(np.intp)
        sensor[site] = _linear().take(level) / np.float32(gains[colour])
    noise = _generator(parameters).standard_normal(sensor.shape, dtype=np.float32)
    noise *= np.sqrt(sensor * np.float32((parameters["shot"] / 255) ** 2) + np.float32((parameters["read"] / 255) ** 2))
    sensor += noise
    raw = np.rint(np.clip(sensor, 0, 1) * np.float32(_WHITE)).astype(np.uint16)
    # Mirrored about its outermost pixels the mosaic goes on as it was; OpenCV would copy the last but one row.
    framed = cv2.copyMakeBorder(raw, 2, 2, 2, 2, cv2.BORDER_REFLECT_101)
    linear = cv2.cvtColor(framed, mosaic.demosaic)[2:-2, 2:-2]
    balanced = np.asarray(cv2.transform(linear, np.diag(gains)), dtype=np.uint16)  # saturates
    return _srgb().take(balanced)


@lru_cache
def _linear() -> Plane:
    """Linear light, 0-1, of sRGB in steps of 1/16 grey level (IEC 61966-2-1)."""
    value = np.arange(255 * _FINE + 1) / (255 * _FINE)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


@lru_cache
def _srgb() -> Plane:
    """sRGB in grey levels of 16-bit linear light: the inverse."""
    value = np.arange(_WHITE + 1) / _WHITE
    return (255 * np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)).astype(np.float32)


GAUSSIAN_NOISE = Step("Gaussian noise", _GAUSSIAN, _draw_gaussian, _apply_gaussian)
POISSON_NOISE = Step("photon noise", _POISSON, _draw_poisson, _apply_poisson)
SALT_AND_PEPPER = Step("white and black pixels", _SALT, _draw_salt, _apply_salt)
CAMERA_NOISE = Step("noise of a sensor, coloured by its mosaic and white balance", _CAMERA, _draw_camera, _apply_camera)
