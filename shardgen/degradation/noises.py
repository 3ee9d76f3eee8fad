"""Noise steps. Noise is generated from a recorded seed; results are clipped to 0-255.

Gaussian and Poisson noise are drawn as in Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833), correlated Gaussian noise
as in BSRGAN (Zhang et al. 2021, arXiv 2103.14006), camera noise as in Brooks et al. 2019, "Unprocessing Images for
Learned Raw Denoising" (arXiv 1811.11127).
"""

import math
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from shardgen.degradation.rng import KeyedRng
from shardgen.degradation.settings import Categorical, Setting, Uniform
from shardgen.degradation.step import Image, Parameters, Settings, Sizes, Step
from srshards.imaging.pixels import to_pixels

Plane = NDArray[np.float32]


def _generator(parameters: Parameters) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(parameters["seed"]))


def _clipped(image: Image) -> Image:
    """Clip to 0-255 in place."""
    return np.clip(image, 0, 255, out=image)


def _float32(array: object) -> NDArray[np.float32]:
    return np.asarray(array, dtype=np.float32)


# ---- Gaussian

_GAUSSIAN: dict[str, Setting] = {
    "sigma": Uniform((1.0, 30.0), "standard deviation in grey levels", 0, 255),
    "kind": Categorical(
        {"colour": 0.6, "grey": 0.4},
        "colour: independent channels; grey: equal channels; correlated: in between, at most sigma's high end",
        ("colour", "grey", "correlated"),
    ),
}


def _draw_gaussian(values: Settings, rng: KeyedRng, sizes: Sizes) -> Parameters:
    kind = rng.choice(values["kind"])
    if kind == "correlated":
        return {"kind": kind, "covariance": _draw_covariance(values["sigma"][1], rng), "seed": rng.seed()}
    return {"kind": kind, "sigma": rng.uniform(*values["sigma"]), "seed": rng.seed()}


def _draw_covariance(sigma: float, rng: KeyedRng) -> list[list[float]]:
    """Draw BSRGAN's 3 x 3 sigma^2 |U' D U|: U is the orthonormal basis of a random matrix, D is random and diagonal."""
    basis = np.linalg.svd([[rng.uniform(0, 1) for _ in range(3)] for _ in range(3)])[0]
    variances = [rng.uniform(0, 1) for _ in range(3)]
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
    """Return the symmetric square root of `covariance`, which is unique and so does not depend on the eigensolver."""
    values, vectors = np.linalg.eigh(covariance)
    root: NDArray[np.float64] = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T  # rounding may give -1e-6
    return root


# ---- Poisson

_CHUNK = 1 << 15  # elements whose intermediate arrays fit into the CPU's cache

_POISSON: dict[str, Setting] = {
    "strength": Uniform((0.05, 3.0), "noise strength relative to real photon noise", 0, 10),
    "kind": Categorical(
        {"colour": 0.6, "grey": 0.4}, "colour: independent channels; grey: luma's noise in all", ("colour", "grey")
    ),
}


def _draw_poisson(values: Settings, rng: KeyedRng, sizes: Sizes) -> Parameters:
    drawn = {name: setting.draw(values[name], rng) for name, setting in _POISSON.items()}
    return {**drawn, "seed": rng.seed()}


def _apply_poisson(image: Image, parameters: Parameters) -> Image:
    """Add photon noise; white is 2^n photons, the number of distinct grey levels rounded up to a power of two."""
    source = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] if parameters["kind"] == "grey" else image
    levels = to_pixels(_float32(source))
    distinct = int(np.count_nonzero(np.bincount(levels.ravel())))
    photons = 1 << (distinct - 1).bit_length()
    noise = poisson_counts(levels, photons, parameters["seed"]) * np.float32(255 / photons)
    noise -= levels
    noise *= np.float32(parameters["strength"])
    return _clipped(image + noise)


def poisson_counts(levels: NDArray[np.uint8], photons: int, seed: int) -> Plane:
    """Draw a Poisson count of mean level / 255 * photons for each element of `levels`; `photons` is 1 to 256.

    By Walker's alias method (1977) with a table per level, eight times as fast as NumPy: the high bits of a random word
    select a column, and its low bits select the column's own count or its alias. Each column is exact to 2^-32.
    """
    table, bits = _alias_table(photons)
    low = np.uint32((1 << bits) - 1)
    random = np.random.SFC64(seed)
    flat = levels.ravel()
    counts = np.empty(flat.size, np.float32)
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK].astype(np.uint32)
        words = random.random_raw((chunk.size + 1) // 2).view(np.uint32)[: chunk.size]
        column = words >> np.uint32(bits)
        entry = table.take(chunk * np.uint32(table.shape[1]) + column)
        keeps_column = (words & low) < (entry & low)
        counts[start : start + _CHUNK] = np.where(keeps_column, column, entry >> np.uint32(bits))
    return counts.reshape(levels.shape)


@lru_cache
def _alias_table(photons: int) -> tuple[NDArray[np.uint32], int]:
    """Return 256 rows, one per level, of alias << bits | threshold; and `bits`, the number of bits of a threshold.

    Each row distributes its probabilities evenly over 2^(32 - bits) columns, by repeatedly filling up the column with
    the least probability from the one with the most. Counts beyond the columns have a probability below 1e-13.
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
    "share": Uniform((0.001, 0.02), "fraction of the pixels affected", 0, 1),
    "salt": Uniform((0.5, 0.5), "fraction of the affected pixels that become white; the others become black", 0, 1),
}


def _draw_salt(values: Settings, rng: KeyedRng, sizes: Sizes) -> Parameters:
    drawn = {name: setting.draw(values[name], rng) for name, setting in _SALT.items()}
    return {**drawn, "seed": rng.seed()}


def _apply_salt(image: Image, parameters: Parameters) -> Image:
    share = parameters["share"]
    random = _generator(parameters).random(image.shape[:2], dtype=np.float32)
    noisy = image.copy()
    noisy[random < share] = 0
    noisy[random < share * parameters["salt"]] = 255
    return _clipped(noisy)


# ---- camera


class _Mosaic(NamedTuple):
    """Colours (0 red, 1 green, 2 blue) of sensor pixels (0, 0), (0, 1), (1, 0), (1, 1), and OpenCV's demosaicing."""

    colours: tuple[int, int, int, int]
    demosaic: int


_MOSAICS = {
    "RGGB": _Mosaic((0, 1, 1, 2), cv2.COLOR_BayerRGGB2RGB),
    "GRBG": _Mosaic((1, 0, 2, 1), cv2.COLOR_BayerGRBG2RGB),
    "GBRG": _Mosaic((1, 2, 0, 1), cv2.COLOR_BayerGBRG2RGB),
    "BGGR": _Mosaic((2, 1, 1, 0), cv2.COLOR_BayerBGGR2RGB),
}
_STEPS_PER_LEVEL = 16  # entries of the sRGB lookup table per grey level
_WHITE = 65535  # in the demosaicing

_CAMERA: dict[str, Setting] = {
    "shot": Uniform(
        (2.55, 27.9),
        "standard deviation at white, before white balance, in linear grey levels; log-uniform",
        0.1,
        100,
    ),
}


def _draw_camera(values: Settings, rng: KeyedRng, sizes: Sizes) -> Parameters:
    """Draw as Brooks et al.: gains, and log read variance = 2.18 log shot variance + 1.2 +- 0.26, with white = 1."""
    low, high = values["shot"]
    shot = math.exp(rng.uniform(math.log(low), math.log(high)))
    spread = NormalDist(0, 0.26).inv_cdf(rng.uniform(1e-6, 1 - 1e-6))
    read = 255 * math.exp((2.18 * 2 * math.log(shot / 255) + 1.2 + spread) / 2)
    return {
        "shot": round(shot, 6),
        "read": round(read, 6),
        "red_gain": rng.uniform(1.9, 2.4),
        "blue_gain": rng.uniform(1.5, 1.9),
        "mosaic": rng.choice(dict.fromkeys(_MOSAICS, 1.0)),
        "seed": rng.seed(),
    }


def _apply_camera(image: Image, parameters: Parameters) -> Image:
    """Convert sRGB to raw values behind a colour mosaic, add noise, and convert them back."""
    mosaic = _MOSAICS[parameters["mosaic"]]
    gains = (parameters["red_gain"], 1.0, parameters["blue_gain"])
    sensor = np.empty(image.shape[:2], np.float32)
    for index, colour in enumerate(mosaic.colours):
        site = np.s_[index // 2 :: 2, index % 2 :: 2]
        level = np.rint(np.clip(image[..., colour][site], 0, 255) * _STEPS_PER_LEVEL).astype(np.intp)
        sensor[site] = _linear().take(level) / np.float32(gains[colour])
    noise = _generator(parameters).standard_normal(sensor.shape, dtype=np.float32)
    noise *= np.sqrt(sensor * np.float32((parameters["shot"] / 255) ** 2) + np.float32((parameters["read"] / 255) ** 2))
    sensor += noise
    raw = np.rint(np.clip(sensor, 0, 1) * np.float32(_WHITE)).astype(np.uint16)
    # Mirroring about the outermost pixels continues the mosaic; OpenCV itself would copy the next inner row.
    padded = cv2.copyMakeBorder(raw, 2, 2, 2, 2, cv2.BORDER_REFLECT_101)
    linear = cv2.cvtColor(padded, mosaic.demosaic)[2:-2, 2:-2]
    balanced = np.asarray(cv2.transform(linear, np.diag(gains)), dtype=np.uint16)  # saturates
    return _srgb().take(balanced)


@lru_cache
def _linear() -> Plane:
    """Return linear light (0-1) of sRGB values in steps of 1/16 grey level (IEC 61966-2-1)."""
    value = np.arange(255 * _STEPS_PER_LEVEL + 1) / (255 * _STEPS_PER_LEVEL)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


@lru_cache
def _srgb() -> Plane:
    """Return sRGB grey levels (0-255) of 16-bit linear light, the inverse of `_linear`."""
    value = np.arange(_WHITE + 1) / _WHITE
    return (255 * np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)).astype(np.float32)


GAUSSIAN_NOISE = Step("Gaussian noise", _GAUSSIAN, _draw_gaussian, _apply_gaussian)
POISSON_NOISE = Step("Poisson (photon) noise", _POISSON, _draw_poisson, _apply_poisson)
SALT_AND_PEPPER = Step("random white and black pixels", _SALT, _draw_salt, _apply_salt)
CAMERA_NOISE = Step("sensor noise, coloured by demosaicing and white balance", _CAMERA, _draw_camera, _apply_camera)
