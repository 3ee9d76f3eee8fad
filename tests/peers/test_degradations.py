"""The built-in recipes give LR images with the statistics of the code that they follow."""

import numpy as np
import pytest
from degradation_runs import (
    SMOOTH,
    UNIFORM_FACTORS,
    Rows,
    altered,
    one_thread,
    ours,
    published_bsrgan_light,
    published_realesrgan,
)
from lr_statistics import compare
from published import HR_PX, Pixels, sharpened
from skimage import data

from shardgen.degradation.recipe_file import load_recipe
from shardgen.degradation.sharpen import usm
from srshards.imaging.pixels import to_pixels

pytestmark = pytest.mark.timeout(1800)  # three minutes of computation

PHOTOS = ("coffee", "rocket", "astronaut", "immunohistochemistry", "retina", "hubble_deep_field")
NUM_REALESRGAN, NUM_BSRGAN = 120, 400
# Real-ESRGAN's approximation of JPEG does not round the planes that it decodes, as a decoder does. These two statistics
# show that, below half a grey level.
ROUNDING = {"chroma noise", "vanishing DCT coefficients"}


@pytest.fixture(scope="module")
def hrs() -> list[Pixels]:
    """Crops of photos of scikit-image, flipped at random."""
    one_thread()
    rng = np.random.default_rng(0)
    photos = [getattr(data, name)() for name in PHOTOS]
    crops = []
    for number in range(NUM_BSRGAN):
        photo = photos[number % len(photos)]
        top, left = (int(rng.integers(edge - HR_PX + 1)) for edge in photo.shape[:2])
        crop = photo[top : top + HR_PX, left : left + HR_PX, :3]
        crops.append(np.ascontiguousarray(crop[:, :: int(rng.choice((-1, 1)))]))
    return crops


@pytest.fixture(scope="module")
def realesrgan(hrs: list[Pixels]) -> dict[str, Rows]:
    return published_realesrgan(hrs[:NUM_REALESRGAN])


@pytest.fixture(scope="module")
def bsrgan(hrs: list[Pixels]) -> dict[str, Rows]:
    return published_bsrgan_light(hrs)


def differing(one: Rows, other: Rows) -> set[str]:
    return {name for name, found in compare(one, other).items() if found.differs}


# ---- realesrgan


def test_published_code_agrees_with_itself(realesrgan: dict[str, Rows], bsrgan: dict[str, Rows]) -> None:
    assert differing(realesrgan["one"], realesrgan["other"]) == set()
    assert differing(bsrgan["one"], bsrgan["other"]) == set()


def test_realesrgan_agrees_with_the_published_code(hrs: list[Pixels], realesrgan: dict[str, Rows]) -> None:
    found = ours(load_recipe("realesrgan"), hrs[:NUM_REALESRGAN])
    assert differing(found, realesrgan["real JPEG"]) == set()
    for seed in ("one", "other"):
        assert differing(found, realesrgan[seed]) <= ROUNDING


def test_smooth_upsampling_would_be_noticed(hrs: list[Pixels], realesrgan: dict[str, Rows]) -> None:
    smooth = ours(altered(*SMOOTH), hrs[:NUM_REALESRGAN])
    expected = {"chroma spectrum, 0.375 to 0.5", "chroma blocks of 16 px", "chroma pairs of 2 px"}
    for code in realesrgan.values():
        assert expected <= differing(smooth, code)


def test_stronger_noise_would_be_noticed(hrs: list[Pixels], realesrgan: dict[str, Rows]) -> None:
    noisy = ours(altered("realesrgan", '"sigma": [1.0, 25.0]', '"sigma": [60.0, 90.0]'), hrs[:NUM_REALESRGAN])
    assert {"PSNR to shrunk HR", "coarse chroma noise"} <= differing(noisy, realesrgan["real JPEG"])


def test_hr_is_sharpened_as_published(hrs: list[Pixels]) -> None:
    for hr in hrs[:4]:
        found = to_pixels(usm(hr.astype(np.float32), 0.5, 50, 10)).astype(int)
        difference = np.abs(found - sharpened(hr))
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01


# ---- bsrgan-light


def test_bsrgan_light_agrees_with_the_published_code(hrs: list[Pixels], bsrgan: dict[str, Rows]) -> None:
    found = ours(load_recipe("bsrgan-light"), hrs)
    for code in bsrgan.values():
        assert differing(found, code) == set()


def test_uniform_factors_would_be_noticed(hrs: list[Pixels], bsrgan: dict[str, Rows]) -> None:
    assert "Laplacian" in differing(ours(altered(*UNIFORM_FACTORS), hrs), bsrgan["one"])


# ---- the comparison itself


def test_comparison_rarely_differs_by_chance() -> None:
    """Of 300 comparisons of equal distributions, 3 are expected to differ in any statistic, and 10 at most."""
    rng, alarms = np.random.default_rng(1), 0
    for _ in range(300):
        common = rng.normal(size=(60, 1))  # what both have from HR
        one, other = (
            [{str(k): float(value) for k, value in enumerate(row)} for row in common + rng.normal(size=(60, 5))]
            for _ in range(2)
        )
        alarms += any(found.differs for found in compare(one, other, permutations=1000).values())
    assert alarms <= 10


def test_comparison_notices_one_shifted_statistic() -> None:
    rng = np.random.default_rng(2)
    one, other = ([{"a": float(a), "b": float(b)} for a, b in rng.normal(size=(150, 2))] for _ in range(2))
    assert differing(one, other) == set()
    assert differing(one, [{"a": row["a"], "b": row["b"] + 1} for row in other]) == {"b"}
