"""Recipes: parsing, and the distribution and reproducibility of draws."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from helpers import make_photo
from hypothesis import given, settings
from hypothesis import strategies as st

from shardgen.degradation.degrade import draw_variants
from shardgen.degradation.recipe import DrawnSteps, Recipe, degraded, parse_steps
from shardgen.degradation.recipe_file import BUILT_IN, load_recipe, recipe_text
from shardgen.degradation.rng import KeyedRng
from shardgen.degradation.settings import Categorical, Integers, Uniform
from shardgen.degradation.steps import STEPS
from srshards.errors import UsageError
from srshards.plain_yaml import load_plain_yaml

DRAWS = 6000
HR, LR = (4_800, 4_800), (1_200, 1_200)  # large, so that rounding to pixels is negligible; no image is allocated


def draws(recipe: Recipe, count: int = DRAWS) -> Iterator[DrawnSteps]:
    return (recipe.draw(KeyedRng("test", number), HR, LR) for number in range(count))


def recipe_of(text: str) -> Recipe:
    return Recipe("test", parse_steps(load_plain_yaml(text), "test.yaml"))


def likely(count: int, total: int, share: float) -> bool:
    """Return whether `count` is within 4.5 standard deviations: 1 false alarm in 150,000."""
    return abs(count - total * share) <= 4.5 * math.sqrt(total * share * (1 - share)) + 1


def is_uniform(values: np.ndarray, low: float, high: float) -> bool:
    """Kolmogorov-Smirnov test for a uniform distribution: 1 false alarm in 20,000."""
    shares = (np.sort(values) - low) / (high - low)
    ranks = np.arange(len(values) + 1) / len(values)
    distance = max(np.abs(shares - ranks[:-1]).max(), np.abs(shares - ranks[1:]).max())
    return bool(shares[0] >= -1e-4 and shares[-1] <= 1.0001 and distance < 2.3 / math.sqrt(len(values)))


# ---- errors in recipes

INVALID_RECIPES: dict[str, tuple[str, ...]] = {
    "": ("expected a list of steps", "found nothing"),
    "blur: {}": ("expected a list of steps", "{'blur': {}}"),
    "- blurr: {}": ("step 1: unknown name 'blurr'; did you mean 'blur'?",),
    "- jpeg\n- gausian_noise": ("step 2: unknown name 'gausian_noise'; did you mean 'gaussian_noise'?",),
    "- xyz": ("step 1: unknown name 'xyz'; expected one of blur, ",),
    "- blur: {sigmas: 2}": ("step 1 (blur): unknown name 'sigmas'; did you mean 'sigma'?",),
    "- blur: {sigma: [3, 1]}": ("step 1 (blur): sigma: ", "the low end 3 is above the high end 1; write [1, 3]"),
    "- jpeg: {quality: [90, 30]}": ("quality: ", "the low end 90 is above the high end 30; write [30, 90]"),
    "- blur: {sigma: wide}": ("sigma: expected a number or [low, high]", "'wide'"),
    "- blur: {sigma: yes}": ("sigma: expected a number or [low, high]", "True"),
    "- blur: {sigma: .inf}": ("sigma: expected a number or [low, high]", "inf"),
    "- blur: {size: [7, 20]}": ("size: expected an odd integer or a range of odd integers [low, high]", "[7, 20]"),
    "- blur: {kernel: round}": ("step 1 (blur): kernel: unknown name 'round'; ",),
    "- blur: {kernel: {isotropic: -1}}": ("kernel: isotropic: expected a weight from 0 to 1,000,000, found -1",),
    "- blur: {kernel: {isotropic: 0}}": ("kernel: expected at least one weight above 0",),
    "- blur: {kernel: []}": ("kernel: expected a name, a list of names or {name: weight}",),
    "- jpeg: {quality: [30, 101]}": ("step 1 (jpeg): quality: expected an integer or a range of integers", "1 to 100"),
    "- jpeg: {quality: 30.5}": ("quality: expected an integer", "30.5"),
    "- jpeg: {probability: 2}": ("step 1 (jpeg): probability: expected a probability from 0 to 1, found 2",),
    "- jpeg: 75": ("step 1 (jpeg): expected its settings", "found 75"),
    "- {jpeg: {}, blur: {}}": ("step 1: expected one step",),
    "- [jpeg]": ("step 1: expected one step", "['jpeg']"),
    "- one_of: []": ("step 1 (one_of): expected a list of `{weight: 0.5, steps: [...]}`",),
    "- one_of: [jpeg]": ("branch 1: expected `{weight: 0.5, steps: [...]}`, found 'jpeg'",),
    "- one_of: [{weigt: 1, steps: []}]": ("branch 1: unknown name 'weigt'; did you mean 'weight'?",),
    "- one_of: [{weight: -1, steps: []}]": ("branch 1: expected a weight from 0 to 1,000,000, found -1",),
    "- one_of: [{weight: 0, steps: []}]": ("(one_of): expected at least one weight above 0",),
    "- one_of: [{weight: 1}]": ("branch 1: expected a list of steps", "found nothing"),
    "- one_of: [{steps: [{jpg: {}}]}]": ("branch 1: step 1: unknown name 'jpg'; did you mean 'jpeg'?",),
    "- shuffle: jpeg": ("step 1 (shuffle): expected a list of steps",),
    "- shuffle: [jpg]": ("step 1 (shuffle): step 1: unknown name 'jpg'",),
    "- jpeg: {quality": ("is not valid YAML: ",),
    "[]": ("expected at least one step",),
    "- jpeg: {quality: 50, quality: 60}": ("is not valid YAML: duplicate key 'quality' (line 1, column 9)",),
    "- &a jpeg\n- *a": ("is not valid YAML: ", "aliases (*name) are not supported; write the value out"),
    "- jpeg: {quality: !!int high}": ("is not valid YAML: ", "tags are not supported, found 'tag:yaml.org,2002:int'"),
    "- jpeg: {quality: !!timestamp late}": ("is not valid YAML: ", "tags are not supported, found"),
    "- blur: {size: 08}": ("size: expected an odd integer or a range of odd integers", "found 8"),
    "- 2001-99-99": ("unknown name '2001-99-99'",),
    "- blur: {sigma: 0x_}": ("sigma: expected a number", "'0x_'"),
    f"- blur: {{sigma: 1{'0' * 5000}}}": ("sigma: expected a number",),
    f"- one_of: [{{weight: 1{'0' * 400}, steps: []}}]": ("expected a weight from 0 to 1,000,000",),
    f"- blur: {{kernel: {{isotropic: 1{'0' * 400}}}}}": ("isotropic: expected a weight from 0 to 1,000,000",),
}


@pytest.mark.parametrize("text", INVALID_RECIPES)
def test_recipe_errors_contain_their_location(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        load_recipe(str(path))
    assert str(error.value).startswith(str(path))
    for part in INVALID_RECIPES[text]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("realesgan", "recipe: unknown name 'realesgan'; did you mean 'realesrgan'?"),
        ("xyz", "recipe: unknown name 'xyz'; expected one of realesrgan, bsrgan-light"),
        ("missing.yaml", "missing.yaml: No such file or directory; expected a recipe (YAML), or one of realesrgan"),
    ],
)
def test_unknown_recipe_is_an_error(name: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load_recipe(name)
    assert message in str(error.value)


def test_binary_recipe_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="expected a recipe in YAML, found bytes that are not UTF-8 text"):
        load_recipe(str(tmp_path / "r.yaml"))


# ---- meaning of recipes


def test_plain_form_includes_defaults_and_parses_to_equal_steps() -> None:
    for name in BUILT_IN:
        recipe = load_recipe(name)
        assert parse_steps(recipe.plain["steps"], "plain") == recipe.steps
        assert parse_steps(load_plain_yaml(recipe_text(name)), name) == recipe.steps
    (jpeg,) = recipe_of("- jpeg").plain["steps"]
    assert jpeg["jpeg"]["quality"] == (30, 95)
    assert set(jpeg["jpeg"]) == set(STEPS["jpeg"].settings) - set(STEPS["jpeg"].added)


def test_draws_do_not_depend_on_the_order_of_weights() -> None:
    one = recipe_of("- blur: {kernel: {isotropic: 1, anisotropic: 1}}")
    other = recipe_of("- blur: {kernel: {anisotropic: 1, isotropic: 1}}")
    assert one == other and list(draws(one, 50)) == list(draws(other, 50))


def test_subsampling_is_written_without_quotes() -> None:
    (step,) = recipe_of("- jpeg: {subsampling: 4:2:0}").plain["steps"]
    assert step["jpeg"]["subsampling"] == {"4:2:0": 1.0}


def test_steps_are_applied_with_their_probability() -> None:
    drawn = list(draws(recipe_of("- jpeg: {probability: 0.3}\n- webp: {probability: 0}\n- to_lr"), 3000))
    counts = Counter(step["step"] for steps in drawn for step in steps)
    assert likely(counts["jpeg"], 3000, 0.3) and counts["webp"] == 0 and counts["to_lr"] == 3000


def test_one_of_selects_branches_by_weight() -> None:
    recipe = recipe_of(
        "- one_of: [{weight: 3, steps: [jpeg, webp]}, {weight: 1, steps: []}, {weight: 0, steps: [banding]}]\n- to_lr"
    )
    kinds = Counter(tuple(step["step"] for step in steps) for steps in draws(recipe, 4000))
    assert set(kinds) == {("jpeg", "webp", "to_lr"), ("to_lr",)}
    assert likely(kinds["to_lr",], 4000, 0.25)


def test_shuffle_draws_every_order_with_to_lr_after_resize() -> None:
    recipe = recipe_of("- shuffle: [jpeg, to_lr, resize, webp]")
    orders = Counter(tuple(step["step"] for step in steps) for steps in draws(recipe, 6000))
    assert len(orders) == 12, "4! orders, halved by the rule that to_lr comes after resize"
    assert all(order.index("resize") < order.index("to_lr") for order in orders)
    assert all(likely(count, 6000, 1 / 12) for count in orders.values())


def test_missing_to_lr_is_appended_and_recorded() -> None:
    drawn = recipe_of("- jpeg").draw(KeyedRng(0), HR, LR)
    assert drawn[-1] == {"step": "to_lr", "size": [1_200, 1_200], "interpolation": "area"}
    assert recipe_of("- to_lr\n- jpeg").draw(KeyedRng(0), HR, LR)[-1]["step"] == "jpeg"


leaves = st.sampled_from(sorted(STEPS)).map(lambda name: {name: {}})
nodes = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda steps: {"shuffle": steps}, st.lists(inner, max_size=3)),
        st.builds(lambda steps: {"one_of": [{"steps": steps}, {"steps": []}]}, st.lists(inner, max_size=3)),
    ),
    max_leaves=5,
)


@settings(max_examples=40)
@given(steps=st.lists(nodes, max_size=4), scale=st.integers(2, 4), number=st.integers(0, 10**6))
def test_any_recipe_gives_lr_and_its_record_reproduces_it(steps: list[dict[str, Any]], scale: int, number: int) -> None:
    recipe = Recipe("any", parse_steps(steps, "any"))
    hr = make_photo(12 * scale, 12 * scale, seed=number % 50)
    drawn = recipe.draw(KeyedRng(number), (12 * scale, 12 * scale), (12, 12))
    lr = degraded(hr, drawn)
    assert lr.shape == (12, 12, 3) and lr.dtype == np.uint8
    record = yaml.safe_load(yaml.safe_dump(drawn))  # safe_dump accepts plain data only
    assert record == drawn and np.array_equal(degraded(hr, record), lr)


def test_lengths_are_pixels_of_the_image_at_the_step() -> None:
    hr = make_photo(96, 96, seed=1)
    blur, to_lr = "- blur: {kernel: isotropic, size: 21, sigma: 1.5}\n", "- to_lr: {interpolation: area}\n"

    def blurred(image: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(image.astype(np.float32), (21, 21), 1.5, borderType=cv2.BORDER_REFLECT_101)

    def shrunk(image: np.ndarray) -> np.ndarray:
        return image.reshape(24, 4, 24, 4, 3).astype(np.float32).mean(axis=(1, 3))

    expected = {blur + to_lr: shrunk(blurred(hr)), to_lr + blur: blurred(shrunk(hr))}
    for text, lr in expected.items():
        drawn = recipe_of(text).draw(KeyedRng(1), (96, 96), (24, 24))
        assert np.abs(degraded(hr, drawn) - lr).max() < 0.6, text


# ---- draws are a function of their key


def test_draws_of_a_key_never_change() -> None:
    """Recorded numbers: future versions must rebuild the shards of today."""
    rng = KeyedRng(7, "山/a.jpg", 0, 512, 3)
    drawn = [rng.uniform(-1, 1), rng.integer(7, 21, 2), rng.choice({"a": 1, "b": 3}), rng.chance(0.5), rng.seed()]
    assert drawn == [0.523623, 9, "b", True, 3560834736162981]
    assert KeyedRng(0, "a\udcff.jpg").chance(1)  # a file name that is not UTF-8


def test_draws_depend_on_seed_source_position_and_variant() -> None:
    def of(*key: Any, scale: int = 4) -> list[DrawnSteps]:
        seed, source, position = key
        return draw_variants(load_recipe("realesrgan"), 2, seed, source, position, 96, scale)

    first = of(0, "a/b.jpg", (0, 0))
    assert first == of(0, "a/b.jpg", (0, 0)) and first[0] != first[1]
    others = [of(1, "a/b.jpg", (0, 0)), of(0, "a/c.jpg", (0, 0)), of(0, "a/b.jpg", (0, 96)), of(0, "a/b.jpg", (96, 0))]
    assert all(other != first for other in others)
    for at_4x, at_2x in zip(first[0], of(0, "a/b.jpg", (0, 0), scale=2)[0], strict=True):
        assert {k: v for k, v in at_4x.items() if k != "size"} == {k: v for k, v in at_2x.items() if k != "size"}


@given(low=st.integers(-50, 50), steps=st.integers(0, 20), step=st.integers(1, 5), number=st.integers())
def test_integer_draws_stay_in_their_range(low: int, steps: int, step: int, number: int) -> None:
    drawn = KeyedRng(number).integer(low, low + steps * step, step)
    assert drawn in range(low, low + steps * step + 1, step)


def test_shuffle_is_uniform() -> None:
    orders = Counter(tuple(KeyedRng(number).shuffled("abc")) for number in range(6000))
    assert len(orders) == 6 and all(likely(count, 6000, 1 / 6) for count in orders.values())


# ---- what is drawn uniformly


def first_steps(step: str) -> DrawnSteps:
    return [drawn[0] for drawn in draws(recipe_of(f"- {step}"))]


def test_divisors_are_drawn_uniformly_on_request() -> None:
    sizes = [
        np.array([step["size"][0] for step in first_steps(f"resize: {{direction: down, range: [0.125, 1]{uniform}}}")])
        for uniform in ("", ", uniform: factor", ", uniform: divisor")
    ]
    assert np.array_equal(sizes[0], sizes[1])
    assert is_uniform(sizes[0] / HR[0], 0.125, 1) and not is_uniform(sizes[2] / HR[0], 0.125, 1)
    assert is_uniform(HR[0] / sizes[2], 1, 8)
    (up, *_) = first_steps("resize: {direction: up, range: 1.25, uniform: divisor}")
    assert up["size"] == [6_000, 6_000]


@pytest.mark.parametrize("kernel", ["isotropic", "anisotropic"])
def test_variances_are_drawn_uniformly_on_request(kernel: str) -> None:
    sigmas = [
        np.concatenate([np.atleast_1d(step["sigma"]) for step in first_steps(f"blur: {{kernel: {kernel}{more}}}")])
        for more in ("", ", uniform: sigma", ", uniform: variance")
    ]
    assert np.array_equal(sigmas[0], sigmas[1])
    assert is_uniform(sigmas[0], 0.2, 3) and not is_uniform(sigmas[2], 0.2, 3) and is_uniform(sigmas[2] ** 2, 0.04, 9)


@pytest.mark.parametrize("step", ["blur: {uniform: variance}", "resize: {uniform: divisor}"])
def test_what_is_uniform_changes_no_later_draw(step: str) -> None:
    plain, other = (draws(recipe_of(f"- {text}\n- blur"), 50) for text in (step.split(":")[0], step))
    for one, two in zip(plain, other, strict=True):
        assert one[0].keys() == two[0].keys() and one[1:] == two[1:]


# ---- the statistics of realesrgan against its probabilities


@pytest.fixture(scope="module")
def realesrgan() -> list[DrawnSteps]:
    return list(draws(load_recipe("realesrgan")))


KERNELS = {
    "isotropic": 0.45,
    "anisotropic": 0.25,
    "generalized_isotropic": 0.12,
    "generalized_anisotropic": 0.03,
    "plateau_isotropic": 0.12,
    "plateau_anisotropic": 0.03,
}


def split_rounds(steps: DrawnSteps) -> tuple[DrawnSteps, DrawnSteps, DrawnSteps]:
    """Split into the first round, the second round and the steps after its noise."""
    names = [step["step"] for step in steps]
    end = names.index("jpeg") + 1
    noises = [number for number, name in enumerate(names) if name in ("gaussian_noise", "poisson_noise")]
    return steps[:end], steps[end : noises[1] + 1], steps[noises[1] + 1 :]


def test_realesrgan_first_round_matches_the_publication(realesrgan: list[DrawnSteps]) -> None:
    rounds = [split_rounds(steps)[0] for steps in realesrgan]
    assert {tuple(step["step"] for step in steps)[1::2] for steps in rounds} == {("resize", "jpeg")}
    _check_kernels([steps[0] for steps in rounds], DRAWS, sinc=0.1, sigma=(0.2, 3))
    _check_resizes([steps[1] for steps in rounds], HR, up=0.2, down=0.7, low=0.15, high=1.5)
    _check_noise([steps[2] for steps in rounds], sigma=(1, 30), strength=(0.05, 3))
    _check_quality([steps[3] for steps in rounds])


def test_realesrgan_second_round_matches_the_publication(realesrgan: list[DrawnSteps]) -> None:
    rounds = [split_rounds(steps)[1] for steps in realesrgan]
    blurred = [steps for steps in rounds if steps[0]["step"] != "resize"]
    assert likely(len(blurred), DRAWS, 0.8)
    _check_kernels([steps[0] for steps in blurred], len(blurred), sinc=0.1, sigma=(0.2, 1.5))
    _check_resizes([steps[-2] for steps in rounds], LR, up=0.3, down=0.4, low=0.3, high=1.2)
    _check_noise([steps[-1] for steps in rounds], sigma=(1, 25), strength=(0.05, 2.5))


def test_realesrgan_last_steps_match_the_publication(realesrgan: list[DrawnSteps]) -> None:
    ends = Counter(tuple(step["step"] for step in split_rounds(steps)[2]) for steps in realesrgan)
    expected = {
        ("to_lr", "sinc", "jpeg"): 0.4,
        ("to_lr", "jpeg"): 0.1,
        ("jpeg", "to_lr", "sinc"): 0.4,
        ("jpeg", "to_lr"): 0.1,
    }
    assert set(ends) == set(expected) and all(likely(ends[order], DRAWS, share) for order, share in expected.items())
    last = [step for steps in realesrgan for step in split_rounds(steps)[2]]
    _check_quality([step for step in last if step["step"] == "jpeg"])
    cutoffs = np.array([step["cutoff"] for step in last if step["step"] == "sinc"])
    assert is_uniform(cutoffs, math.pi / 3, math.pi)
    kinds = Counter(step["interpolation"] for step in last if step["step"] == "to_lr")
    assert set(kinds) == {"area", "linear", "cubic"} and all(likely(kinds[kind], DRAWS, 1 / 3) for kind in kinds)


def _check_kernels(steps: DrawnSteps, total: int, sinc: float, sigma: tuple[float, float]) -> None:
    sincs = [step for step in steps if step["step"] == "sinc"]
    blurs = [step for step in steps if step["step"] == "blur"]
    assert len(sincs) + len(blurs) == total and likely(len(sincs), total, sinc)
    for lowest, sizes_px in ((math.pi / 3, range(7, 13)), (math.pi / 5, range(13, 22))):
        cutoffs = [step["cutoff"] for step in sincs if step["size"] in sizes_px]
        assert is_uniform(np.array(cutoffs), lowest, math.pi)
    kinds = Counter(step["kernel"] for step in blurs)
    assert set(kinds) == set(KERNELS)
    assert all(likely(kinds[kind], len(blurs), share) for kind, share in KERNELS.items())
    sizes = Counter(step["size"] for step in steps)
    assert set(sizes) == set(range(7, 22, 2)) and all(likely(sizes[size], total, 1 / 8) for size in sizes)
    sigmas = np.concatenate([np.atleast_1d(step["sigma"]) for step in blurs])
    assert is_uniform(sigmas, *sigma)


def _check_resizes(steps: DrawnSteps, of: tuple[int, int], up: float, down: float, low: float, high: float) -> None:
    factors = np.array([step["size"][0] / of[0] for step in steps])
    larger, smaller = factors[factors > 1], factors[factors < 1]
    assert likely(len(larger), len(steps), up) and is_uniform(larger, 1, high)
    assert likely(len(smaller), len(steps), down) and is_uniform(smaller, low, 1)
    kinds = Counter(step["interpolation"] for step in steps)
    assert set(kinds) == {"area", "linear", "cubic"} and all(likely(kinds[kind], len(steps), 1 / 3) for kind in kinds)


def _check_noise(steps: DrawnSteps, sigma: tuple[float, float], strength: tuple[float, float]) -> None:
    gaussian = [step for step in steps if step["step"] == "gaussian_noise"]
    poisson = [step for step in steps if step["step"] == "poisson_noise"]
    assert len(gaussian) + len(poisson) == len(steps) and likely(len(gaussian), len(steps), 0.5)
    for kind in (gaussian, poisson):
        assert likely(sum(step["kind"] == "grey" for step in kind), len(kind), 0.4)
    assert is_uniform(np.array([step["sigma"] for step in gaussian]), *sigma)
    assert is_uniform(np.array([step["strength"] for step in poisson]), *strength)
    assert len({step["seed"] for step in steps}) == len(steps)


def _check_quality(steps: DrawnSteps) -> None:
    qualities = Counter(step["quality"] for step in steps)
    assert set(qualities) == set(range(30, 96))
    assert all(likely(qualities[quality], len(steps), 1 / 66) for quality in qualities)


# ---- settings


@pytest.mark.parametrize("name", sorted(STEPS))
def test_every_step_has_valid_defaults_and_a_description(name: str) -> None:
    step = STEPS[name]
    assert step.summary and step.summary[-1] != "."
    for key, setting in step.settings.items():
        assert setting.what, f"{name}: {key}"
        if isinstance(setting, (Uniform, Integers, Categorical)):
            assert setting.read(_as_yaml(setting.default), name) == setting.default


def _as_yaml(value: Any) -> Any:
    return yaml.safe_load(yaml.safe_dump(list(value) if isinstance(value, tuple) else dict(value)))


def test_leading_zeros_are_decimal() -> None:
    (blur,) = recipe_of("- blur: {sigma: 01.50, kernel: isotropic, size: 011}").plain["steps"]
    assert (blur["blur"]["size"], blur["blur"]["sigma"]) == ((11, 11), (1.5, 1.5))


def test_repeated_upscaling_is_bounded() -> None:
    recipe = recipe_of("- resize: {direction: up, range: [8, 8]}\n" * 6)
    sizes = [step["size"] for step in recipe.draw(KeyedRng(0), (64, 64), (16, 16)) if step["step"] == "resize"]
    assert sizes == [[256, 256]] * 6
    (size, *_) = (step["size"] for step in recipe.draw(KeyedRng(0), (4096, 4096), (1024, 1024)))
    assert size == [8192, 8192], "WebP takes no more than 16,383 px"


def test_deep_nesting_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("- shuffle: [" * 3000)
    with pytest.raises(UsageError, match=r"nested too deeply|not valid YAML"):
        load_recipe(str(tmp_path / "deep.yaml"))
    (tmp_path / "deep.yaml").write_text("- " + "{shuffle: [" * 900 + "jpeg" + "]}" * 900)
    with pytest.raises(UsageError, match="nested too deeply"):
        load_recipe(str(tmp_path / "deep.yaml"))
