"""Degradation steps: their effect on pixels and the distribution of their parameters."""

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardgen.degradation import kernels
from shardgen.degradation.blurs import convolve
from shardgen.degradation.kernels import Kernel
from shardgen.degradation.noises import _alias_table, poisson_counts
from shardgen.degradation.rng import KeyedRng
from shardgen.degradation.settings import Categorical
from shardgen.degradation.sharpen import usm
from shardgen.degradation.sizes import resize
from shardgen.degradation.step import Image, Parameters, Size, Sizes
from shardgen.degradation.steps import STEPS


def photo(height: int, width: int, seed: int = 0) -> Image:
    """Noise, partly outside 0-255 as blurred and resized images are."""
    return np.random.default_rng(seed).uniform(-20, 275, (height, width, 3)).astype(np.float32)


def flat(level: float, edge: int = 256) -> Image:
    return np.full((edge, edge, 3), level, np.float32)


def draw(name: str, number: int = 0, current: Size = (64, 64), lr: Size = (16, 16), **settings: Any) -> Parameters:
    """Draw the parameters of a step from its defaults and `settings`, given as in a recipe."""
    known = STEPS[name].settings
    values = {key: setting.default for key, setting in known.items()}
    values |= {key: known[key].read(value, key) for key, value in settings.items()}
    return STEPS[name].draw(values, KeyedRng(number), Sizes(current, max(current, (64, 64)), lr))


def degraded(image: Image, name: str, **parameters: Any) -> Image:
    return STEPS[name].apply(image, parameters)


def likely(hits: int, tries: int, probability: float) -> bool:
    """Return whether `hits` is within five standard deviations of its binomial mean."""
    return abs(hits - tries * probability) <= 5 * math.sqrt(tries * probability * (1 - probability)) + 1e-9


# ---- all steps

EVERY_CHOICE = [
    (name, {key: choice})
    for name, step in STEPS.items()
    for key, setting in step.settings.items()
    if isinstance(setting, Categorical)
    for choice in setting.names
] + [(name, {}) for name in STEPS]


@pytest.mark.parametrize(("name", "settings"), EVERY_CHOICE)
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (47, 33)])
def test_step_result_depends_on_image_and_parameters_only(name: str, settings: dict[str, Any], shape: Size) -> None:
    check_step(name, draw(name, 3, shape, (4, 6), **settings), shape)


@given(
    name=st.sampled_from(list(STEPS)), number=st.integers(0, 10**6), height=st.integers(1, 40), width=st.integers(1, 40)
)
def test_any_draw_of_any_step_can_be_applied(name: str, number: int, height: int, width: int) -> None:
    check_step(name, draw(name, number, (height, width), (4, 6)), (height, width))


@pytest.mark.parametrize("name", STEPS)
def test_step_can_be_applied_at_full_size(name: str) -> None:
    check_step(name, draw(name, 0, (512, 512), (128, 128)), (512, 512))


def check_step(name: str, parameters: Parameters, shape: Size) -> None:
    image = photo(*shape)
    before = image.copy()
    result = STEPS[name].apply(image, parameters)
    assert np.array_equal(image, before)
    size = parameters.get("size")
    assert result.shape == ((*size, 3) if isinstance(size, list) else image.shape)
    assert result.dtype == np.float32 and result.flags.c_contiguous and np.isfinite(result).all()
    assert np.array_equal(result, STEPS[name].apply(image, json.loads(json.dumps(parameters))))


@pytest.mark.parametrize("name", STEPS)
def test_equal_keys_draw_equal_parameters(name: str) -> None:
    assert draw(name, 5) == draw(name, 5)
    if name not in ("sharpen", "chroma_subsampling"):  # these draw nothing by default
        assert len({json.dumps(draw(name, number)) for number in range(40)}) > 1


@pytest.mark.parametrize("level", [0.0, 93.0, 255.0])
@pytest.mark.parametrize(
    "name",
    ["blur", "sinc", "motion_blur", "lens_blur", "resize", "to_lr", "chroma_subsampling", "sharpen", "jpeg", "webp"],
)
def test_flat_image_stays_flat(name: str, level: float) -> None:
    tolerance = 2 if name in ("jpeg", "webp") else 0.01
    assert np.abs(STEPS[name].apply(flat(level, 40), draw(name)) - level).max() <= tolerance


# ---- kernels and blurs

KERNELS = {
    "isotropic": kernels.gaussian(21, 2.0, 2.0, 0.0),
    "anisotropic": kernels.gaussian(21, 2.5, 0.7, 0.6),
    "thin line": kernels.gaussian(21, 9.0, 0.05, 0.4),
    "tiny": kernels.gaussian(7, 0.2, 0.2, 0.0),
    "generalized": kernels.generalized_gaussian(15, 2.0, 1.0, -1.0, 0.5),
    "plateau": kernels.plateau(13, 1.5, 1.5, 0.0, 1.7),
    "large plateau": kernels.plateau(51, 6.0, 3.0, 2.0, 1.2),
    "sinc": kernels.sinc(21, 1.1),
    "sharp sinc": kernels.sinc(9, math.pi),
    "disk": kernels.disk(3.3),
    "large disk": kernels.disk(14.0),
    "motion": kernels.motion(17.0, 30.0),
    "level motion": kernels.motion(9.0, 0.0),
    "upright motion": kernels.motion(9.5, 90.0),
}


def second_moments(kernel: Kernel) -> tuple[float, float, float]:
    """Mean of x^2, y^2 and xy."""
    line = np.arange(len(kernel)) - len(kernel) // 2
    return (kernel @ line**2).sum(), (line**2 @ kernel).sum(), line @ kernel @ line


@pytest.mark.parametrize("name", KERNELS)
def test_kernel_is_symmetric_and_sums_to_1(name: str) -> None:
    kernel = KERNELS[name]
    assert kernel.shape[0] == kernel.shape[1] and kernel.shape[0] % 2 == 1
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    assert np.allclose(kernel, kernel[::-1, ::-1], rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", KERNELS)
def test_convolve_matches_its_definition(name: str) -> None:
    kernel, image = KERNELS[name], photo(40, 37)
    middle = len(kernel) // 2
    padded = np.pad(image.astype(np.float64), ((middle, middle), (middle, middle), (0, 0)), mode="reflect")
    expected = sum(weight * padded[y : y + 40, x : x + 37] for (y, x), weight in np.ndenumerate(kernel) if weight)
    assert np.abs(convolve(image, kernel) - expected).max() < 0.06


@pytest.mark.parametrize(("sigma_x", "sigma_y", "rotation"), [(2.0, 2.0, 0.0), (3.0, 1.0, 0.0), (3.0, 1.0, 0.5)])
def test_gaussian_kernel_has_its_covariance(sigma_x: float, sigma_y: float, rotation: float) -> None:
    xx, yy, xy = second_moments(kernels.gaussian(51, sigma_x, sigma_y, rotation))
    cosine, sine = math.cos(rotation), math.sin(rotation)
    assert xx == pytest.approx((cosine * sigma_x) ** 2 + (sine * sigma_y) ** 2, rel=1e-6)
    assert yy == pytest.approx((sine * sigma_x) ** 2 + (cosine * sigma_y) ** 2, rel=1e-6)
    assert xy == pytest.approx(cosine * sine * (sigma_x**2 - sigma_y**2), rel=1e-6, abs=1e-9)


def test_gaussian_kernel_of_3_px_matches_its_formula() -> None:
    side, corner = math.exp(-0.5), math.exp(-1.0)
    expected = np.array([[corner, side, corner], [side, 1, side], [corner, side, corner]])
    assert np.allclose(kernels.gaussian(3, 1.0, 1.0, 0.0), expected / expected.sum())


def test_beta_shapes_the_peak_of_a_kernel() -> None:
    gaussian = kernels.gaussian(21, 2.0, 1.0, 0.3)
    assert np.allclose(kernels.generalized_gaussian(21, 2.0, 1.0, 0.3, 1.0), gaussian)
    for beta in (0.5, 1.0, 4.0):
        generalized = kernels.generalized_gaussian(21, 2.0, 2.0, 0.0, beta)
        assert generalized[10, 11] / generalized[10, 10] == pytest.approx(math.exp(-0.5 * 0.25**beta))  # half a sigma
        assert generalized[12, 10] / generalized[10, 10] == pytest.approx(math.exp(-0.5))  # one sigma, for every beta
    plateau = kernels.plateau(21, 2.0, 2.0, 0.0, 2.0)
    assert plateau[10, 12] / plateau[10, 10] == pytest.approx(1 / 2)  # at one sigma: 1 / (1 + 1)
    assert plateau[10, 14] / plateau[10, 10] == pytest.approx(1 / 17)  # at two: 1 / (1 + (2^2)^2)


def test_bessel_j1_matches_tabulated_values() -> None:
    known = {
        0.0: 0.0,
        1.0: 0.44005058574493352,
        2.0: 0.57672480775687339,
        3.8317059702075123: 0.0,  # its first zero
        5.0: -0.32757913759146522,
        10.0: 0.043472746168861437,
        50.0: -0.097511828125175157,
        100.0: -0.077145352014112158,
    }
    values = kernels.bessel_j1(np.array(list(known)))
    assert np.allclose(values, list(known.values()), rtol=0, atol=1e-14)
    assert np.allclose(kernels.bessel_j1(-np.array(list(known))), -values)


@pytest.mark.parametrize("cutoff", [0.8, 1.5, 2.2])
def test_sinc_kernel_is_an_isotropic_low_pass(cutoff: float) -> None:
    response = np.abs(np.fft.fft2(kernels.sinc(51, cutoff), (256, 256)))
    frequency = np.abs(np.fft.fftfreq(256)) * 2 * math.pi
    radius = np.hypot(frequency[:, None], frequency)
    assert np.abs(response[radius < cutoff - 0.3] - 1).max() < 0.15
    assert response[radius > cutoff + 0.3].max() < 0.1
    assert response[np.abs(radius - cutoff) < 0.03].mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("radius", [6.0, 9.5, 14.0])
def test_disk_kernel_has_its_radius(radius: float) -> None:
    xx, yy, _ = second_moments(kernels.disk(radius))
    assert xx == pytest.approx(radius**2 / 4, rel=0.02) and yy == pytest.approx(xx)
    assert kernels.disk(radius).max() == pytest.approx(1 / (math.pi * radius**2), rel=0.01)


def test_motion_kernel_matches_computed_values() -> None:
    assert np.allclose(kernels.motion(5.0, 0.0), [[0] * 5, [0] * 5, [0.2] * 5, [0] * 5, [0] * 5])
    assert np.allclose(kernels.motion(2.0, 90.0), [[0, 0.25, 0], [0, 0.5, 0], [0, 0.25, 0]])
    rising = kernels.motion(15.0, 45.0)
    assert rising[3, 11] > 0.05 and rising[3, 3] == 0  # to the right and up, where y is small


@pytest.mark.parametrize("angle", [0.0, 20.0, 45.0, 70.0, 90.0])
def test_motion_kernel_has_its_length(angle: float) -> None:
    xx, yy, _ = second_moments(kernels.motion(21.0, angle))
    assert xx + yy == pytest.approx(21**2 / 12, rel=0.05)


def test_blur_draws_the_parameters_of_its_kernel() -> None:
    needs = {
        "isotropic": {"kernel", "size", "sigma"},
        "anisotropic": {"kernel", "size", "sigma", "rotation"},
        "generalized_isotropic": {"kernel", "size", "sigma", "beta"},
        "generalized_anisotropic": {"kernel", "size", "sigma", "rotation", "beta"},
        "plateau_isotropic": {"kernel", "size", "sigma", "beta"},
        "plateau_anisotropic": {"kernel", "size", "sigma", "rotation", "beta"},
    }
    draws = [draw("blur", number) for number in range(4000)]
    for drawn in draws:
        assert set(drawn) == needs[drawn["kernel"]]
        assert isinstance(drawn["sigma"], list) == drawn["kernel"].endswith("anisotropic")
        assert drawn["size"] in range(7, 22, 2)
    counts = Counter(drawn["kernel"] for drawn in draws)
    assert all(likely(counts[name], 4000, share) for name, share in STEPS["blur"].settings["kernel"].default.items())


def test_beta_is_equally_often_below_and_above_1() -> None:
    betas = [draw("blur", number, kernel="generalized_isotropic")["beta"] for number in range(1000)]
    assert likely(sum(beta < 1 for beta in betas), 1000, 0.5)
    assert min(betas) < 0.55 and max(betas) > 3.9
    above = [draw("blur", number, kernel="plateau_isotropic", beta_plateau=[2, 3])["beta"] for number in range(100)]
    assert min(above) >= 2 and max(above) > 2.9


def test_small_sinc_has_a_higher_cutoff() -> None:
    draws = [draw("sinc", number) for number in range(500)]
    small = [drawn["cutoff"] for drawn in draws if drawn["size"] < 13]
    large = [drawn["cutoff"] for drawn in draws if drawn["size"] >= 13]
    assert math.pi / 3 <= min(small) < 1.1 and math.pi / 5 <= min(large) < 0.7
    assert max(small + large) <= math.pi


# ---- noises


def noise_of(name: str, level: float = 128.0, **parameters: Any) -> Image:
    return degraded(flat(level), name, seed=11, **parameters) - np.float32(level)


def correlations(noise: Image) -> np.ndarray:
    return np.corrcoef(noise.reshape(-1, 3).T)


def test_gaussian_noise_has_its_sigma() -> None:
    colour, grey = (
        noise_of("gaussian_noise", kind="colour", sigma=10.0),
        noise_of("gaussian_noise", kind="grey", sigma=10.0),
    )
    for noise in (colour, grey):
        assert abs(noise.mean()) < 0.2 and noise.std() == pytest.approx(10, rel=0.02)
        assert np.abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.02
    assert np.abs(correlations(colour) - np.eye(3)).max() < 0.02
    assert np.allclose(grey, grey[..., :1])
    assert np.abs(colour.ravel() / 10 > 2).mean() == pytest.approx(0.02275, abs=0.002)


def test_correlated_noise_has_the_recorded_covariance() -> None:
    for number in range(30):
        covariance = np.array(draw("gaussian_noise", number, kind="correlated", sigma=[1, 30])["covariance"])
        assert np.array_equal(covariance, covariance.T) and (covariance >= 0).all()
        assert np.linalg.eigvalsh(covariance).min() > -1e-5 and np.diag(covariance).max() <= 900
    drawn = draw("gaussian_noise", 1, kind="correlated", sigma=20)
    noise = STEPS["gaussian_noise"].apply(flat(128.0), drawn) - 128
    assert np.abs(np.cov(noise.reshape(-1, 3).T) - drawn["covariance"]).max() < 5


@pytest.mark.parametrize("name", ["gaussian_noise", "poisson_noise"])
def test_kinds_follow_their_probabilities(name: str) -> None:
    counts = Counter(draw(name, number)["kind"] for number in range(2000))
    assert likely(counts["colour"], 2000, 0.6) and counts["colour"] + counts["grey"] == 2000


@pytest.mark.parametrize("photons", [1, 2, 8, 32, 128, 256])
def test_poisson_alias_table_is_the_distribution(photons: int) -> None:
    table, bits = _alias_table(photons)
    columns = table.shape[1]
    share = (table & np.uint32((1 << bits) - 1)) / (1 << bits)
    alias = table >> np.uint32(bits)
    for level in (0, 1, 100, 254, 255):
        own = share[level].copy()
        np.add.at(own, alias[level], 1 - share[level])
        mean = level / 255 * photons
        log = [n * math.log(mean) - mean - math.lgamma(n + 1) if mean else -math.inf * n for n in range(columns)]
        expected = np.nan_to_num(np.exp(np.array(log)), nan=1.0)
        assert np.abs(own / columns - expected).max() < 1e-9


@pytest.mark.parametrize("photons", [1, 16, 256])
def test_poisson_counts_have_the_mean_and_variance_of_their_level(photons: int) -> None:
    count = 20_000
    levels = np.repeat(np.array([0, 5, 60, 128, 255], np.uint8), count)
    for row, level in zip(poisson_counts(levels, photons, 1).reshape(5, -1), (0, 5, 60, 128, 255), strict=True):
        mean = level / 255 * photons
        assert abs(row.mean() - mean) <= 5 * math.sqrt(mean / count)
        spread = math.sqrt((2 * mean**2 + mean) / count)  # variance of a Poisson sample's variance
        assert abs(row.var() - mean) <= 5 * spread
        assert abs(np.corrcoef(row[:-1], row[1:])[0, 1]) < 0.04 if level else not row.any()


def test_poisson_counts_do_not_repeat_between_blocks() -> None:
    levels = np.full(100_001, 200, np.uint8)
    counts = poisson_counts(levels, 64, 7)
    assert np.array_equal(counts[:70_000], poisson_counts(levels[:70_000], 64, 7))
    assert len(np.unique(counts[:1000] - counts[1 << 15 : (1 << 15) + 1000])) > 5


def test_poisson_noise_grows_with_the_level() -> None:
    ramp = np.repeat(np.repeat(np.arange(256, dtype=np.float32)[None, :, None], 400, axis=0), 3, axis=2)
    noisy = degraded(ramp, "poisson_noise", kind="colour", strength=0.5, seed=3)  # 256 levels, so 256 photons
    for level in (50, 120, 200):
        expected = 0.5 * 255 / 256 * math.sqrt(level / 255 * 256)
        assert (noisy[:, level] - level).std() == pytest.approx(expected, rel=0.1)
        assert (noisy[:, level] - level).mean() == pytest.approx(0, abs=5 * expected / math.sqrt(1200))
    grey = degraded(ramp, "poisson_noise", kind="grey", strength=0.5, seed=3) - ramp
    assert np.allclose(grey[:, 60:200], grey[:, 60:200, :1], atol=1e-4)
    colour = noisy - ramp
    assert np.abs(correlations(colour[:, 60:200]) - np.eye(3)).max() < 0.05


def test_poisson_noise_of_one_level_has_one_photon() -> None:
    noise = degraded(flat(102.0), "poisson_noise", kind="colour", strength=0.1, seed=3) - 102
    photons = (noise / 0.1 + 102) / 255
    assert np.allclose(photons, np.rint(photons), atol=1e-3)
    assert likely(int((np.rint(photons) == 0).sum()), photons.size, math.exp(-0.4))


def test_salt_and_pepper_hit_their_share_of_pixels() -> None:
    noise = degraded(flat(100.0), "salt_and_pepper", share=0.02, salt=0.25, seed=4)
    assert (noise == noise[..., :1]).all() and set(np.unique(noise)) == {0, 100, 255}
    assert likely(int((noise[..., 0] == 255).sum()), 256**2, 0.005)
    assert likely(int((noise[..., 0] == 0).sum()), 256**2, 0.015)


QUIET = {"shot": 0.1, "read": 0.0, "red_gain": 2.0, "blue_gain": 1.6}
MOSAICS = ("RGGB", "GRBG", "GBRG", "BGGR")


@pytest.mark.parametrize("mosaic", MOSAICS)
@pytest.mark.parametrize("shape", [(32, 32), (33, 31)])
def test_camera_noise_at_low_levels_preserves_colours(mosaic: str, shape: Size) -> None:
    image = np.broadcast_to(np.array([200, 90, 30], np.float32), (*shape, 3))
    noisy = degraded(np.ascontiguousarray(image), "camera_noise", mosaic=mosaic, seed=1, **QUIET)
    assert np.abs(noisy - image).max() < 2
    # A smooth image is restored up to its edges, without a shift.
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    smooth = np.stack([60 + 3 * x, 60 + 3 * y, 100 + x + y], axis=2)
    noisy = degraded(smooth, "camera_noise", mosaic=mosaic, seed=1, **QUIET)
    assert np.abs(noisy - smooth)[2:-2, 2:-2].max() < 3 and np.abs(noisy - smooth).max() < 8


@pytest.mark.parametrize("mosaic", MOSAICS)
def test_camera_noise_has_the_variance_of_its_model(mosaic: str) -> None:
    """At green sites, which demosaicing keeps: variance = shot^2 x + read^2, scaled by sRGB's slope."""
    linear = ((128 / 255 + 0.055) / 1.055) ** 2.4
    slope = 1.055 / 2.4 * linear ** (1 / 2.4 - 1)
    loud = {"shot": 6.0, "read": 2.0, "red_gain": 2.0, "blue_gain": 1.6}
    noise = noise_of("camera_noise", mosaic=mosaic, **loud)
    green_index = mosaic.index("G")
    green = noise[green_index // 2 :: 2, green_index % 2 :: 2, 1]
    assert green.std() == pytest.approx(slope * math.sqrt(6.0**2 * linear + 2.0**2), rel=0.05)
    assert noise[..., 0].std() > noise[..., 1].std() and abs(noise.mean()) < 0.5


def test_camera_noise_levels_follow_brooks_et_al() -> None:
    draws = [draw("camera_noise", number) for number in range(1500)]
    assert all(2.55 <= drawn["shot"] <= 27.9 and 1.9 <= drawn["red_gain"] <= 2.4 for drawn in draws)
    assert likely(sum(drawn["shot"] < math.sqrt(2.55 * 27.9) for drawn in draws), 1500, 0.5)  # log-uniform
    rest = [2 * math.log(d["read"] / 255) - 2.18 * 2 * math.log(d["shot"] / 255) - 1.2 for d in draws]
    assert np.mean(rest) == pytest.approx(0, abs=0.04) and np.std(rest) == pytest.approx(0.26, rel=0.1)
    counts = Counter(drawn["mosaic"] for drawn in draws)
    assert all(likely(counts[mosaic], 1500, 0.25) for mosaic in MOSAICS)


# ---- compression


def texture(height: int = 96, width: int = 95) -> Image:
    y, x = np.mgrid[:height, :width]
    waves = [128 + 60 * np.sin(x / (3 + c)) + 50 * np.cos(y / (5 - c)) for c in range(3)]
    return np.stack(waves, axis=2).astype(np.float32)


def error(name: str, **parameters: Any) -> float:
    return float(np.square(degraded(texture(), name, **parameters) - texture()).mean())


def test_lower_quality_increases_the_error() -> None:
    jpeg = [error("jpeg", quality=quality, subsampling="4:4:4") for quality in (10, 30, 60, 90, 100)]
    webp = [error("webp", quality=quality) for quality in (5, 40, 90)]
    assert jpeg == sorted(jpeg, reverse=True) and jpeg[-1] < 1
    assert webp == sorted(webp, reverse=True)


def test_chroma_subsampling_increases_the_jpeg_error() -> None:
    jpeg = [error("jpeg", quality=95, subsampling=kind) for kind in ("4:2:0", "4:2:2", "4:4:4")]
    assert jpeg == sorted(jpeg, reverse=True)


def test_chroma_subsampling_matches_computed_values() -> None:
    image = np.zeros((2, 4, 3), np.float32)
    image[:, :2] = (255, 0, 0)
    luma = 0.299 * 255
    half = degraded(image, "chroma_subsampling", subsampling="4:2:0")
    # Two blocks of chroma, red and none; pixels at their border blend 3/4 of one with 1/4 of the other.
    for column, share in enumerate((1, 0.75, 0.25, 0)):
        own = luma if column < 2 else 0
        expected = [own + share * (255 - luma), own - share * luma, own - share * luma]
        assert np.allclose(half[:, column], expected, atol=0.01)
    quarter = degraded(image, "chroma_subsampling", subsampling="4:1:1")
    assert np.allclose(quarter[0, 0], [luma + 0.5 * (255 - luma), 0.5 * luma, 0.5 * luma], atol=0.01)


@pytest.mark.parametrize("kind", ["4:2:0", "4:2:2", "4:1:1"])
def test_chroma_subsampling_preserves_luma(kind: str) -> None:
    image = texture()
    weights = np.array([0.299, 0.587, 0.114])
    after = degraded(image, "chroma_subsampling", subsampling=kind)
    assert np.abs(after @ weights - image @ weights).max() < 0.01
    grey = np.repeat(image[..., :1], 3, axis=2)
    assert np.abs(degraded(grey, "chroma_subsampling", subsampling=kind) - grey).max() < 0.01


@pytest.mark.parametrize("levels", [2, 8, 33, 256])
@pytest.mark.parametrize("dither", ["none", "ordered", "noise"])
def test_banding_leaves_the_given_number_of_levels(levels: int, dither: str) -> None:
    ramp = np.repeat(np.repeat(np.linspace(0, 255, 2048, dtype=np.float32)[None, :, None], 16, axis=0), 3, axis=2)
    banded = degraded(ramp, "banding", levels=levels, dither=dither, seed=5)
    step = 255 / (levels - 1)
    assert len(np.unique(np.rint(banded / step))) == levels and np.allclose(
        banded / step, np.rint(banded / step), atol=1e-3
    )
    assert np.abs(banded - ramp).max() <= step * (0.501 if dither == "none" else 1)


@pytest.mark.parametrize("dither", ["ordered", "noise"])
def test_dither_preserves_the_mean(dither: str) -> None:
    assert degraded(flat(100.0), "banding", levels=8, dither=dither, seed=5).mean() == pytest.approx(100, abs=0.4)
    assert degraded(flat(100.0), "banding", levels=8, dither="none").mean() == pytest.approx(3 * 255 / 7, abs=0.01)


def test_banding_draws_a_seed_only_for_noise() -> None:
    draws = [draw("banding", number) for number in range(1000)]
    assert all(("seed" in drawn) == (drawn["dither"] == "noise") for drawn in draws)
    assert likely(sum(drawn["dither"] == "none" for drawn in draws), 1000, 0.8)


# ---- sizes


@given(number=st.integers(0, 10**6), of=st.sampled_from(["image", "lr"]))
@example(number=0, of="lr")
def test_resize_draws_from_the_range_of_its_direction(number: int, of: str) -> None:
    base = (20, 30) if of == "lr" else (101, 83)
    for direction, low, high in (("down", 0.15, 1), ("up", 1, 1.5), ("keep", 1, 1)):
        size = draw("resize", number, (101, 83), (20, 30), of=of, direction=direction)["size"]
        for edge, new in zip(base, size, strict=True):
            assert max(4, low * edge) - 1.01 <= new <= high * edge + 0.01
        assert abs(size[0] / base[0] - size[1] / base[1]) < 0.1 or min(size) == 4


def test_resize_keeps_the_size_outside_its_range() -> None:
    assert draw("resize", range=[0.3, 0.5], direction="up")["size"] == [64, 64]
    assert draw("resize", range=[2, 3], direction="down")["size"] == [64, 64]
    assert 19 <= draw("resize", range=[0.3, 0.5], direction="down")["size"][0] <= 32
    assert draw("resize", current=(5, 5), range=0.1, direction="down")["size"] == [4, 4]


def test_resize_directions_follow_their_probabilities() -> None:
    sizes = [draw("resize", number, (1000, 1000))["size"][0] for number in range(2000)]
    assert likely(sum(size > 1000 for size in sizes), 2000, 0.2)
    assert likely(sum(size < 1000 for size in sizes), 2000, 0.7)


def test_to_lr_resizes_to_the_lr_size() -> None:
    drawn = draw("to_lr", lr=(13, 21))
    assert drawn["size"] == [13, 21] and STEPS["to_lr"].apply(photo(64, 64), drawn).shape == (13, 21, 3)


def test_area_averages_the_covered_pixels() -> None:
    image = photo(12, 15)
    assert np.allclose(resize(image, (4, 5), "area"), image.reshape(4, 3, 5, 3, 3).mean(axis=(1, 3)), atol=1e-3)
    line = np.array([0, 60, 120], np.float32)[None, :, None].repeat(3, axis=2)
    # Five pixels from three: each is the mean of those that it covers.
    assert resize(line, (1, 5), "area")[0, :, 0].tolist() == [0, 30, 60, 90, 120]
    assert resize(line, (2, 6), "area")[1, :, 0].tolist() == [0, 0, 60, 60, 120, 120]
    # Two from three: the middle pixel contributes to both means.
    assert resize(line, (1, 2), "area")[0, :, 0].tolist() == [30, 90]
    both = resize(image, (6, 30), "area")  # lower and wider
    assert np.allclose(both[:, ::2], image.reshape(6, 2, 15, 3).mean(axis=1), atol=1e-3)


@pytest.mark.parametrize("interpolation", ["area", "linear", "cubic", "nearest", "lanczos"])
@pytest.mark.parametrize("size", [(24, 24), (72, 72), (31, 67)])
def test_resize_does_not_shift(interpolation: str, size: Size) -> None:
    """A ramp stays a ramp: the centre of pixel i of n is at (i + 1/2) / n of the width."""
    ramp = np.arange(48, dtype=np.float32)[None, :, None].repeat(48, axis=0).repeat(3, axis=2)
    result = resize(ramp, size, interpolation)[size[0] // 2, :, 0]
    expected = (np.arange(size[1]) + 0.5) * 48 / size[1] - 0.5
    error = np.abs(result - expected)[6:-6]
    assert error.max() <= (0.51 if interpolation in ("nearest", "area") else 0.05)  # these two give steps


# ---- sharpening


def test_usm_changes_edges_only() -> None:
    image = flat(100.0, 128)
    image[:, 64:] = 150
    sharp = usm(image, 0.5, 50, 10.0)
    assert sharp[64, 63, 0] < 95 and sharp[64, 64, 0] > 155
    assert np.array_equal(usm(image, 0.5, 50, 60.0), image)  # all differences are below the threshold
    assert np.abs(sharp[:, 0] - 100).max() < 0.01 and sharp.min() >= 0 and sharp.max() <= 255


def test_usm_matches_computed_values() -> None:
    """A bright pixel on black, a 3 px Gaussian of sigma 0.8, all differences nearby above the threshold."""
    image = np.zeros((9, 9, 3), np.float32)
    image[4, 4] = 200
    end = math.exp(-0.5 / 0.64)
    line = np.array([end, 1, end]) / (1 + 2 * end)
    blurred = 200 * np.outer(line, line)
    sharp = min(200 + 0.5 * (200 - blurred[1, 1]), 255)
    # The mask covers the pixel and its eight neighbours, which change by more than 1; its centre is 1.
    assert blurred.min() > 1
    assert usm(image, 0.5, 3, 1.0)[4, 4, 0] == pytest.approx(sharp, abs=0.01)
    assert usm(image, 0.5, 3, 1.0)[4, 5, 0] == pytest.approx(0)  # would be negative: clipped
