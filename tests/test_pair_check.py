"""The check of given pairs, on displacements and changes that are known."""

import functools
import json
from collections.abc import Callable
from dataclasses import fields

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pairs import Image8, shrunk

from shardgen.degradation.degrade import downsample, draw_variants, make_lrs
from shardgen.degradation.recipe_file import load_recipe
from shardgen.pairs.check import PairCheck, check_pair, problem

METHODS = ("area", "cubic", "lanczos", "linear", "matlab", "nearest")
SIZE = 384  # of HR in px, a multiple of all scales used here


@functools.cache
def scene(seed: int, size: int = SIZE + 16) -> Image8:
    """Return a random image with the spectrum of photos (amplitude 1 / frequency) and saturated colours."""
    rng = np.random.default_rng(seed)
    fx, fy = np.meshgrid(np.fft.rfftfreq(size), np.fft.fftfreq(size))
    amplitudes = np.minimum(1 / np.maximum(np.hypot(fx, fy), 1e-9), size / 2)
    shared, *channels = (np.fft.irfft2(amplitudes * np.fft.rfft2(rng.normal(size=(size, size)))) for _ in range(4))
    image = np.stack([shared + 0.5 * channel for channel in channels], axis=2)
    image = 45 * image / image.std() + np.array([140, 115, 85])
    return np.clip(image, 0, 255).astype(np.uint8)


def displaced(image: Image8, right: int, down: int, size: int = SIZE) -> Image8:
    """Return the centre of an image with its content moved by whole pixels."""
    return np.ascontiguousarray(image[8 - down :, 8 - right :][:size, :size])


def checked(lr: Image8, scale: int = 4, seed: int = 0) -> PairCheck:
    return check_pair(displaced(scene(seed), 0, 0), np.ascontiguousarray(lr), scale)


# ---- displacement


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("move", [(0, 0), (1, 0), (-2, 3), (5, -7)])
def test_displacements_by_whole_hr_pixels_are_measured(scale: int, move: tuple[int, int]) -> None:
    for method in ("area", "matlab"):
        check = checked(downsample(displaced(scene(0), *move), scale, method), scale)
        assert check.shift == pytest.approx((move[0] / scale, move[1] / scale), abs=0.03)
        assert check.stretch == pytest.approx((0, 0), abs=0.05) and check.correlation > 0.97
        is_displaced = max(map(abs, move)) / scale > max(0.75 / scale, 0.15)
        assert (problem(check) or "").startswith("LR is displaced against HR" if is_displaced else "")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_sampling_every_nth_pixel_displaces_by_up_to_half_a_pixel(scale: int) -> None:
    """The centre of LR pixel i is at s i + (s - 1) / 2 in HR; `nearest` takes s i + s div 2, INTER_NEAREST s i."""
    hr = displaced(scene(0), 0, 0)
    centred = checked(downsample(hr, scale, "nearest"), scale)
    assert centred.shift == pytest.approx([(scale - 1 - scale // 2 * 2) / 2 / scale] * 2, abs=0.05)
    assert problem(centred) is None
    first = checked(hr[::scale, ::scale], scale)
    assert first.shift == pytest.approx([(scale - 1) / 2 / scale] * 2, abs=0.06)


def test_align_corners_is_measured_as_magnification() -> None:
    hr = displaced(scene(0), 0, 0)
    positions = np.linspace(0, SIZE - 1, SIZE // 4, dtype=np.float32)  # the centres of the corner pixels coincide
    check = checked(cv2.remap(cv2.GaussianBlur(hr, (0, 0), 1.6), *np.meshgrid(positions, positions), cv2.INTER_LINEAR))
    assert check.shift == pytest.approx((0, 0), abs=0.02) and check.stretch == pytest.approx([-0.375] * 2, abs=0.03)
    message = problem(check)
    assert message and message.startswith("LR is not magnified like HR, as with align_corners") and "0.20" in message


@pytest.mark.parametrize("move", [(0, 0), (3, -1), (-6, 5)])
def test_displacement_agrees_with_an_exhaustive_search(move: tuple[int, int]) -> None:
    """The search compares LR with HR moved by whole pixels and shrunk, and fits a parabola to the correlations."""
    image = scene(3)
    noise = np.random.default_rng(0).normal(0, 12, (SIZE // 4, SIZE // 4, 3))
    lr = np.clip(shrunk(displaced(image, *move), 4) * 0.9 + 8 + noise, 0, 255).astype(np.uint8)

    grey_hr, grey_lr = image.mean(axis=2), lr.mean(axis=2)

    def error(right: int, down: int) -> float:
        moved = displaced(grey_hr, right, down).reshape(SIZE // 4, 4, SIZE // 4, 4).mean(axis=(1, 3))
        return -float(np.corrcoef(moved.ravel(), grey_lr.ravel())[0, 1])

    def vertex(low: float, middle: float, high: float) -> float:
        return (low - high) / (2 * (low - 2 * middle + high))

    _, x, y = min((error(x, y), x, y) for x in range(-7, 8) for y in range(-7, 8))
    best = error(x, y)
    expected = x + vertex(error(x - 1, y), best, error(x + 1, y)), y + vertex(error(x, y - 1), best, error(x, y + 1))
    check = checked(lr, seed=3)
    assert check.shift == pytest.approx(np.array(expected) / 4, abs=0.03)
    assert check.shift == pytest.approx(np.array(move) / 4, abs=4 * check.shift_error)


# ---- genuine pairs, and information that is missing


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_pairs_of_every_method_have_no_problem(scale: int) -> None:
    for seed in range(3):
        for method in METHODS:
            assert problem(checked(downsample(displaced(scene(seed), 0, 0), scale, method), scale, seed)) is None


@pytest.mark.parametrize("name", ["realesrgan", "bsrgan-light"])
def test_pairs_of_the_recipes_have_no_problem(name: str) -> None:
    recipe, hr = load_recipe(name), displaced(scene(1), 0, 0)
    for lr in make_lrs(hr, 4, "cubic", draw_variants(recipe, 8, 0, "photo.png", (0, 0), SIZE, 4)):
        assert problem(checked(lr, seed=1)) is None


def sky(seed: int, noise: float) -> Image8:
    ramp = np.linspace(150, 210, 256)[:, None, None] + np.random.default_rng(seed).normal(0, noise, (256, 256, 3))
    return np.clip(ramp, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "hr", [np.zeros((256, 256, 3), np.uint8), np.full((256, 256, 3), 255, np.uint8), sky(0, 0), sky(0, 1.5)]
)
def test_images_without_detail_have_no_verdict(hr: Image8) -> None:
    rng = np.random.default_rng(1)
    clean = shrunk(hr, 4)
    for sigma in (0.0, 2.0, 8.0):
        lr = np.clip(clean + rng.normal(0, sigma, clean.shape), 0, 255).astype(np.uint8)
        check = check_pair(hr, lr, 4)
        assert problem(check) is None
        numbers = check.as_dict()
        assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    if not hr.std():
        assert check.shift == (0, 0) and check.shift_error > 1, "no information: an unknown displacement"


@pytest.mark.parametrize("edge", [1, 2, 5, 16, 33])
def test_small_images_are_checked(edge: int) -> None:
    hr = displaced(scene(0), 0, 0, 4 * edge)
    assert problem(check_pair(hr, shrunk(hr, 4), 4)) is None


# ---- changes that are problems


def gamma(lr: Image8) -> Image8:
    return np.asarray(255 * (lr / 255) ** 1.1 + 0.5, np.uint8)


def factor(by: float) -> Callable[[Image8], Image8]:
    return lambda lr: np.clip(lr * by + 0.5, 0, 255).astype(np.uint8)


ANOTHER = "LR shows another image than HR: correlation "
TURNED = "LR is flipped or rotated against HR: correlation 1.00 with it flipped or rotated, "
CHANGES: dict[str, tuple[Callable[[Image8], Image8], str]] = {
    "another image": (lambda lr: shrunk(displaced(scene(9), 0, 0), 4), ANOTHER),
    "black": (lambda lr: 0 * lr, ANOTHER),
    "mirrored": (lambda lr: lr[:, ::-1], TURNED),
    "upside down": (lambda lr: lr[::-1], TURNED),
    "rotated by 90 degrees": (lambda lr: np.rot90(lr), TURNED),
    "rotated by 180 degrees": (lambda lr: lr[::-1, ::-1], TURNED),
    "red and blue swapped": (lambda lr: lr[..., ::-1], "red and blue of LR are swapped: correlation of red - blue -"),
    "grey": (
        lambda lr: np.repeat(cv2.cvtColor(lr, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2),
        "LR does not have the colours of HR: correlation of red - blue 0.00, expected at least 0.1",
    ),
    "half a pixel right": (
        lambda lr: cv2.warpAffine(lr, np.array([[1, 0, 0.5], [0, 1, 0]]), lr.shape[1::-1], flags=cv2.INTER_CUBIC),
        "LR is displaced against HR (right, down): 0.",
    ),
    "a row too low": (lambda lr: np.roll(lr, 1, axis=0), "LR is displaced against HR (right, down): "),
    "10 % brighter": (factor(1.1), "LR is brighter than HR: +"),
    "10 % darker": (factor(0.9), "LR is darker than HR: -"),
    "gamma 1.1": (gamma, "LR is darker than HR: -"),
    "a red cast": (
        lambda lr: np.clip(lr + np.array([20, -10, -10]), 0, 255).astype(np.uint8),
        "LR has a colour cast against HR: red +",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_lr_is_a_problem_with_its_figure_and_bound(change: str) -> None:
    apply, message = CHANGES[change]
    for seed in range(2):
        lr = shrunk(displaced(scene(seed), 0, 0), 4)
        found = problem(checked(apply(lr), seed=seed))
        assert found is not None and found.startswith(message) and (", expected at " in found or message == TURNED)


def test_noise_does_not_change_brightness_and_colour() -> None:
    """Noise that is clipped at black raises the mean, but not the median."""
    hr = displaced(scene(0), 0, 0) // 8
    lr = np.clip(shrunk(hr, 4) + np.random.default_rng(0).normal(0, 25, (SIZE // 4, SIZE // 4, 3)), 0, 255).astype(
        np.uint8
    )
    check = check_pair(hr, lr, 4)
    assert lr.mean() - hr.mean() > 2 and abs(check.brightness) < 1 and check.colour < 1 and check.noise > 10


# ---- the record


def test_equal_pairs_give_equal_records_with_any_number_of_threads() -> None:
    hr = displaced(scene(2), 0, 0)
    lr = downsample(hr, 4, "cubic")
    before, records = cv2.getNumThreads(), []
    try:
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            records.append(json.dumps(check_pair(hr, lr, 4).as_dict()))
    finally:
        cv2.setNumThreads(before)
    assert records[0] == records[1] and "-0.0," not in records[0]


def test_a_record_has_floats_only_and_can_be_read_back() -> None:
    check = checked(downsample(displaced(scene(0), 1, 0), 4, "matlab"))
    record = check.as_dict()
    assert list(record) == [field.name for field in fields(PairCheck)][1:]
    assert all(type(value) is float for value in record.values())
    assert PairCheck.from_dict(json.loads(json.dumps(record)), 4) == check
    del record["detail"]
    with pytest.raises(KeyError, match="detail"):
        PairCheck.from_dict(record, 4)


@pytest.mark.parametrize(
    ("hr", "lr", "message"),
    [
        (np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4, 3), np.uint8), "expected HR of 16 x 16 px for LR at 4x, got"),
        (np.zeros((8, 8), np.uint8), np.zeros((2, 2, 3), np.uint8), "expected H x W x 3 uint8, got"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((2, 2, 3), np.uint16), "expected H x W x 3 uint8, got"),
    ],
)
def test_other_arrays_are_refused(hr: NDArray[np.uint8], lr: NDArray[np.uint8], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_pair(hr, lr, 4)
