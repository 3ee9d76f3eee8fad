"""The benchmark of degradations, run on a few synthetic photos, and its evaluation."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import make_photo, make_photos

from benchmarks import bench_degrade, degrade_cost
from benchmarks.common import PhotoSet
from benchmarks.degrade_photo import online_pair, open_hr
from benchmarks.degrade_report import check_limits
from benchmarks.degrade_stream import epochs_to_break_even
from shardgen.degradation.recipe_file import BUILT_IN, load_recipe
from shardgen.degradation.steps import STEPS
from shardgen.planning.config import METHODS

ONLINE, SHARDS = ("online, 400 px", "online, 512 px"), ("shards, 8 variants", "shards, 1 variant")


@pytest.mark.slow
def test_command_measures_costs_and_training(tmp_path: Path) -> None:
    photos, output = make_photos(tmp_path / "photos", 5), tmp_path / "degrade.json"
    few = ["--num-photos", "4", "--rounds", "1", "--workers", "0", "--draws", "3"]
    short = ["--seconds", "0.05", "--batches", "2", "--batch", "2"]
    where = ["--photos", str(photos), "--scratch", str(tmp_path), "-o", str(output)]
    result = CliRunner().invoke(bench_degrade.main, [*few, *short, *where])
    assert result.exit_code == 0, result.output
    found = json.loads(output.read_text())

    plain = {(cost["name"], cost["direction"], cost["scale"]) for cost in found["costs"] if "steps" not in cost}
    assert plain == {
        *((method, direction, 4) for method in METHODS for direction in ("shrink", "enlarge")),
        *(("matlab", direction, scale) for direction in ("shrink", "enlarge") for scale in (2, 3)),
    }
    assert {cost["hr_px"] for cost in found["costs"] if cost["scale"] == 3} == {510}
    for cost in found["costs"]:
        assert 0 < cost["median_ms"]["median"] <= cost["p90_ms"]["median"]
        assert cost["photos_per_second_per_core"]["median"] == pytest.approx(1e3 / cost["mean_ms"]["median"], rel=0.1)
    recipes = {cost["name"]: cost for cost in found["costs"] if "steps" in cost}
    assert set(recipes) == set(BUILT_IN) and all(cost["images"] == 3 for cost in recipes.values())
    for cost in recipes.values():
        total_ms = sum(step["ms_per_lr"]["median"] for step in cost["steps"].values())
        assert total_ms == pytest.approx(cost["mean_ms"]["median"], abs=0.02)
    assert len(found["limits"]) == 7 and all(isinstance(limit["met"], bool) for limit in found["limits"])

    training = found["training"]
    assert set(training["cases"]) == {*ONLINE, *SHARDS} and set(training["generated"]) == set(SHARDS)
    assert all(case["patches_per_second"]["median"] > 0 for case in training["cases"].values())
    assert [ratio["bottom"] for ratio in training["ratios"]] == list(ONLINE)
    many, one = (training["generated"][name]["bytes_per_photo"] for name in SHARDS)
    assert 7 * 128 * 128 * 3 < many - one < 7 * 128 * 128 * 3 + 20_000
    assert len(training["paid_back"]) == 2 and len(found["load_average_1_min"]) == 1
    assert found["settings"]["patch_px"] == 192
    assert "Limits" in result.output and "epochs" in result.output


def test_missing_photos_are_reported() -> None:
    result = CliRunner().invoke(bench_degrade.main, [])
    assert result.exit_code == 2 and "--photos DIR" in result.output


def test_photos_are_spread_evenly_over_the_list(tmp_path: Path) -> None:
    photos = PhotoSet.of(make_photos(tmp_path / "photos", 12, (32, 32)))
    chosen = bench_degrade.evenly_spaced(photos, 6, tmp_path / "few")
    assert (
        chosen.paths == photos.paths[::2] and len(bench_degrade.evenly_spaced(photos, 99, tmp_path / "all").paths) == 12
    )


@pytest.mark.parametrize("edge", [400, 512])
def test_online_patches_are_random_and_aligned_with_hr(tmp_path: Path, edge: int) -> None:
    path = make_photos(tmp_path, 1, (600, 700)) / "class0" / "img0.jpg"
    (hr, lr), (_, other) = (online_pair(path, edge, load_recipe("realesrgan")) for _ in range(2))
    assert hr.shape == (edge, edge, 3) and lr.shape == other.shape == (edge // 4, edge // 4, 3)
    assert not np.array_equal(lr, other)
    small = hr.reshape(edge // 4, 4, edge // 4, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - lr).mean() < np.abs(small - small[::-1, ::-1]).mean() / 2


def test_open_hr_renders_like_the_generator(tmp_path: Path) -> None:
    path = make_photos(tmp_path, 1, (512, 600)) / "class0" / "img0.jpg"
    hr = open_hr(path)
    assert hr.shape == (512, 512, 3)
    assert np.abs(hr - make_photo(512, 600, 0)[:, 44:556].astype(int)).mean() < 6


def test_steps_timed_restores_the_steps() -> None:
    before, image = dict(STEPS), np.zeros((16, 16, 3), np.float32)
    with degrade_cost.steps_timed() as seconds:
        start_s = time.perf_counter()
        STEPS["jpeg"].apply(image, {"quality": 50, "subsampling": "4:2:0"})
        total_s = time.perf_counter() - start_s
    assert before == STEPS
    assert [name for name, each in seconds.items() if each] == ["jpeg"] and 0 < seconds["jpeg"][0] <= total_s


def test_limits_apply_to_every_scale_and_direction() -> None:
    def cost(name: str, direction: str, ms: float) -> dict[str, object]:
        spread = {"median": ms, "min": ms, "max": ms, "rounds": [ms]}
        return {"name": name, "direction": direction, "scale": 4, "median_ms": spread}

    costs = [cost("matlab", "shrink", 3.0), cost("matlab", "enlarge", 3.1), cost("cubic", "shrink", 99)]
    limits = check_limits([*costs, cost("realesrgan", "recipe", 60)])
    assert [(limit["name"], limit["met"]) for limit in limits] == [
        ("matlab, shrink 4x", True),
        ("matlab, enlarge 4x", False),
        ("realesrgan, per LR", True),
    ]


def test_epochs_to_break_even() -> None:
    assert epochs_to_break_even([100, 80], [11, 10], [1, 2]) == [10, 10]
    assert epochs_to_break_even([100, 80], [11, 2], [1, 2]) is None
