"""The `jpeg` step's `upsampling`: its pixels, its records, and recipes, records and shards that precede it."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import generate, make_photo, make_photos, run_cli
from plain_jpeg import compressed

from shardgen.degradation.degrade import draw_variants
from shardgen.degradation.recipe import Recipe, parse_steps
from shardgen.degradation.recipe_file import load_recipe
from shardgen.degradation.rng import KeyedRng
from shardgen.degradation.step import Image
from shardgen.degradation.steps import STEPS
from srshards.plain_yaml import load_plain_yaml
from srshards.shards.stored_samples import stored_samples

OLD = Path(__file__).parent / "old_files" / "version_2"
SIZES = ((64, 64), (16, 16))


def jpeg(image: Image, quality: int, subsampling: str, **more: str) -> Image:
    return STEPS["jpeg"].apply(image, {"quality": quality, "subsampling": subsampling, **more})


def draws(text: str, count: int = 200) -> list[Any]:
    recipe = Recipe("test", parse_steps(load_plain_yaml(text), "test"))
    return [recipe.draw(KeyedRng(number), *SIZES) for number in range(count)]


# ---- pixels


@pytest.mark.parametrize("upsampling", ["plain", "smooth"])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:4:4"])
def test_step_equals_a_plain_jpeg(subsampling: str, upsampling: str) -> None:
    """From quality 96 on, libjpeg-turbo's encoder uses the accurate DCT, as the plain one does."""
    photo = make_photo(96, 144, seed=3)
    for quality in (96, 98, 100):
        found = jpeg(photo.astype(np.float32), quality, subsampling, upsampling=upsampling)
        assert np.array_equal(found, compressed(photo, quality, subsampling, upsampling))


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_plain_upsampling_repeats_chroma_and_keeps_luma(quality: int) -> None:
    photo = make_photo(96, 96, seed=4).astype(np.float32)
    plain, smooth = (jpeg(photo, quality, "4:2:0", upsampling=kind) for kind in ("plain", "smooth"))
    inside = ((plain > 0) & (plain < 255)).all(axis=2)  # clipping changes luma and chroma
    chroma = plain[..., [2]] - plain[..., [0]]  # of the four pixels of a block: equal up to rounding
    blocks = chroma.reshape(48, 2, 48, 2).swapaxes(1, 2).reshape(48, 48, 4)
    whole = inside.reshape(48, 2, 48, 2).all(axis=(1, 3))
    assert whole.sum() > 500 and np.ptp(blocks[whole], axis=1).max() == 0
    weights = np.array([0.299, 0.587, 0.114])
    both = inside & ((smooth > 0) & (smooth < 255)).all(axis=2)
    assert np.abs((plain - smooth)[both] @ weights).max() < 1 < np.abs(plain - smooth)[both].max()


@pytest.mark.parametrize("shape", [(1, 1), (47, 33)])
def test_upsampling_changes_nothing_but_colour(shape: tuple[int, int]) -> None:
    photo = make_photo(*shape, seed=5).astype(np.float32)
    grey = np.repeat(photo[..., :1], 3, axis=2)
    for image, subsampling in ((photo, "4:4:4"), (grey, "4:2:0")):
        assert np.array_equal(jpeg(image, 60, subsampling, upsampling="plain"), jpeg(image, 60, subsampling))


# ---- draws and records


def test_upsampling_is_drawn_by_weight_and_recorded() -> None:
    kinds = [drawn[0]["upsampling"] for drawn in draws("- jpeg: {upsampling: {plain: 0.25, smooth: 0.75}}", 2000)]
    assert set(kinds) == {"plain", "smooth"} and 400 < kinds.count("plain") < 600
    assert {drawn[0]["upsampling"] for drawn in draws("- jpeg: {upsampling: plain}")} == {"plain"}


@pytest.mark.parametrize("settings", ["", "{upsampling: smooth}", "{upsampling: [smooth]}"])
def test_smooth_is_the_default_and_is_not_recorded(settings: str) -> None:
    """So that recipes without the setting, and their shards, are those of before."""
    (drawn, *_) = draws(f"- jpeg: {settings}")
    assert drawn[0].keys() == {"step", "quality", "subsampling"}
    recipe = Recipe("test", parse_steps(load_plain_yaml(f"- jpeg: {settings}"), "test"))
    assert recipe.plain["steps"] == [{"jpeg": {"quality": (30, 95), "subsampling": {"4:2:0": 1.0}}}]


def test_one_upsampling_leaves_all_other_draws_unchanged() -> None:
    plain, before = (draws(f"- jpeg: {{{setting}}}\n- blur\n- jpeg") for setting in ("upsampling: plain", ""))
    assert [[{**step, "upsampling": None} for step in steps] for steps in plain] == [
        [{**step, "upsampling": None} for step in steps] for steps in before
    ]


def test_realesrgan_repeats_chroma_in_both_rounds() -> None:
    drawn = [load_recipe("realesrgan").draw(KeyedRng(number), *SIZES) for number in range(50)]
    kinds = [step["upsampling"] for steps in drawn for step in steps if step["step"] == "jpeg"]
    assert kinds == ["plain"] * 100


def test_unknown_upsampling_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("- jpeg: {upsampling: plane}\n")
    result = run_cli("recipe", "check", tmp_path / "r.yaml")
    message = "step 1 (jpeg): upsampling: unknown name 'plane'; did you mean 'plain'?"
    assert result.returncode == 2 and message in result.stderr


def test_upsampling_is_listed_shown_and_rebuilt(tmp_path: Path) -> None:
    assert "    upsampling: {smooth: 1.0}    # chroma in the decoder" in run_cli("recipe", "steps").stdout
    assert run_cli("recipe", "show", "realesrgan").stdout.count("upsampling: plain") == 3
    generate(make_photos(tmp_path / "in", 4), tmp_path / "out", "--size", 64, "--degradation", "realesrgan")
    folder = tmp_path / "out" / "scale_4x"
    (sample, *_) = stored_samples(folder, "train-000000")
    result = run_cli("rebuild", sample.key, folder)
    assert result.returncode == 0 and "identical" in result.stdout
    shown = run_cli("inspect", folder, "--sample", sample.key).stdout
    assert ", 4:2:0, plain" in " ".join(shown.split())


# ---- recipes, records and shards that precede the setting


def test_records_without_upsampling_give_recorded_pixels() -> None:
    """The digest is of the release before the setting: integer arithmetic, equal on every CPU."""
    photo = make_photo(61, 83, seed=6).astype(np.float32)
    digest = hashlib.sha256()
    for quality, subsampling in ((30, "4:2:0"), (62, "4:2:2"), (95, "4:2:0"), (80, "4:4:4")):
        digest.update(jpeg(photo, quality, subsampling).astype(np.uint8).tobytes())
    assert digest.hexdigest() == "9355829c33e8b022ca7a2de661456128253fd71be8cb9ccbdfc3656b9ba695c9"


def test_old_shards_are_rebuilt_as_they_were() -> None:
    samples = [sample for name in ("train-000000", "val-000000") for sample in stored_samples(OLD / "scale_2x", name)]
    records = [step for sample in samples for steps in sample.describe()["degradation"] for step in steps]
    assert sum(step["step"] == "jpeg" for step in records) > 20 and not any("upsampling" in step for step in records)
    for sample in samples:
        result = run_cli("rebuild", sample.key, OLD / "scale_2x")
        assert result.returncode == 0 and "different" not in result.stdout, result.stdout + result.stderr


@pytest.fixture
def smooth_recipe(tmp_path: Path) -> Path:
    """realesrgan as it was before the setting."""
    text = run_cli("recipe", "show", "realesrgan").stdout
    (tmp_path / "realesrgan.yaml").write_text(text.replace("upsampling: plain", "upsampling: smooth"))
    return tmp_path / "realesrgan.yaml"


def test_old_recipe_draws_the_recorded_parameters_again(smooth_recipe: Path) -> None:
    recipe = load_recipe(str(smooth_recipe))
    settings = json.loads((OLD / "scale_2x" / "manifest.json").read_text())["settings"]
    assert json.loads(json.dumps(recipe.plain)) == settings["degradation"]
    for name, variants in (("train-000000", 2), ("val-000000", 1)):
        for sample in stored_samples(OLD / "scale_2x", name):
            record = sample.describe()
            x, y, *_ = record["box"]
            drawn = draw_variants(recipe, variants, settings["seed"], record["source"], (x, y), settings["hr_size"], 2)
            assert drawn == record["degradation"]


def test_shards_of_the_old_recipe_are_replaced_on_request_only(smooth_recipe: Path, tmp_path: Path) -> None:
    photos, output = make_photos(tmp_path / "in", 6), tmp_path / "out"
    args = ("--size", 64, "--val-fraction", 0, "--degradation")
    generate(photos, output, *args, smooth_recipe)
    shutil.copy(photos / "class0" / "img0.jpg", photos / "class0" / "new.jpg")
    refused = generate(photos, output, *args, "realesrgan", expect=2).stderr
    assert (
        "degradation realesrgan with 8 steps -> realesrgan with 8 steps (jpeg: upsampling smooth -> plain)" in refused
    )
    assert "1 finished shard would be removed. Pass --force (make: FORCE=1) to replace them" in refused
    assert "Shards: 1 built" in generate(photos, output, *args, "realesrgan", "--force").stdout


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("- jpeg: {quality: [30, 95]}", "- jpeg: {quality: 50}", "jpeg: quality [30, 95] -> [50, 50]"),
        ("- jpeg", "- jpeg: {probability: 0.5}", "jpeg: probability 1 -> 0.5"),
        ("- jpeg: {upsampling: {plain: 1, smooth: 2}}", "- jpeg", "jpeg: upsampling {plain: 1, smooth: 2} -> smooth"),
        ("- jpeg\n- webp", "- jpeg", "other steps"),
        ("- jpeg", "- webp", "other steps"),
        (
            "- one_of: [{weight: 1, steps: [jpeg]}, {weight: 2, steps: []}]",
            "- one_of: [{weight: 2, steps: [jpeg]}, {weight: 2, steps: []}]",
            "one_of: weights [1, 2] -> [2, 2]",
        ),
        ("- shuffle: [jpeg, webp]", "- shuffle: [jpeg, {webp: {quality: 1}}]", "webp: quality [30, 95] -> [1, 1]"),
    ],
)
def test_dry_run_names_the_difference_of_recipes(old: str, new: str, difference: str, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "in", 3)
    (tmp_path / "old.yaml").write_text(old)
    (tmp_path / "new.yaml").write_text(new)
    args = ("generate", "-i", photos, "-o", tmp_path / "out", "--size", 32, "--workers", 0, "--degradation")
    assert run_cli(*args, tmp_path / "old.yaml", "--auto").returncode == 0
    assert f" steps ({difference}))" in run_cli(*args, tmp_path / "new.yaml", "--dry-run").stdout.replace(
        " step ", " steps "
    )


def test_photos_can_be_added_to_shards_of_an_equal_recipe(tmp_path: Path) -> None:
    """Under any name: only the steps count."""
    photos = make_photos(tmp_path / "in", 4)
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text("- blur: {sigma: [0.2, 1]}\n- jpeg: {quality: [50, 60]}\n")
    generate(photos, tmp_path / "out", "--size", 32, "--degradation", tmp_path / "one.yaml")
    assert (
        "up to date" in generate(photos, tmp_path / "out", "--size", 32, "--degradation", tmp_path / "two.yaml").stdout
    )
    shutil.copy(photos / "class0" / "img0.jpg", photos / "class0" / "new.jpg")
    assert generate(photos, tmp_path / "out", "--size", 32, "--degradation", tmp_path / "two.yaml").returncode == 0
