"""The benchmark of schedules."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from helpers import make_photos

from benchmarks import bench_schedule
from benchmarks.bench_schedule import cases
from benchmarks.schedule_run import SHAPES, Case
from trainer.training.schedule import learning_rate


def test_grid_is_every_combination() -> None:
    assert list(cases("steps=300 lr=default,0.002 seed=0,1")) == [
        Case(steps=300, lr=lr, seed=seed) for lr in (None, 0.002) for seed in (0, 1)
    ]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("rate=1", "--grid: rate=1: expected name=value,value with one of model, steps, lr"),
        ("steps", "--grid: steps: expected name=value,value with one of model, steps, lr"),
        ("steps=0.5", "--grid: steps=0.5: expected int values"),
        ("steps=default", "--grid: steps=default: expected int values"),
        ("lr=high", "--grid: lr=high: expected float values"),
    ],
)
def test_invalid_grid(grid: str, message: str) -> None:
    with pytest.raises(click.UsageError) as error:
        list(cases(grid))
    assert error.value.message.startswith(message)


@pytest.mark.parametrize(
    ("shape", "middle", "last"),
    [("cosine", 0.505, 0.01), ("cosine-0", 0.5, 0), ("cosine-10", 0.55, 0.1), ("linear", 0.5, 0), ("trapezoid", 1, 0)],
)
def test_shapes(shape: str, middle: float, last: float) -> None:
    rates = [learning_rate(step, 1000, 1.0, 100, SHAPES[shape]) for step in range(1000)]
    assert rates[:100] == pytest.approx([(step + 1) / 100 for step in range(100)])
    assert rates[550] == pytest.approx(middle, abs=0.01) and rates[999] == pytest.approx(last, abs=0.01)
    assert rates[100:] == sorted(rates[100:], reverse=True)


@pytest.mark.slow
def test_runs_are_summarised_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_schedule, "_TILE_PX", 32)
    photos, work, output = make_photos(tmp_path / "photos", 8, (40, 52)), tmp_path / "work", tmp_path / "found.json"
    settings = ["--photos", str(photos), "--holdout", str(photos), "--work", str(work), "-o", str(output)]
    tiny = "steps=4 lr=0.0001 batch=2 patch=16 amp=off"
    for grid in (f"{tiny} seed=0", f"{tiny} seed=0,1", f"{tiny} start=pytorch"):
        result = CliRunner().invoke(bench_schedule.main, [*settings, "--grid", grid])
        assert result.exit_code == 0, result.output
    found = json.loads(output.read_text())
    assert [(one["case"]["start"], one["case"]["seed"]) for one in found["runs"]] == [
        ("ours", 0),
        ("ours", 1),
        ("pytorch", 0),
    ]
    ours, pytorch = found["summary"]
    assert ours["settings"] == "model=ultra_lite steps=4 lr=0.0001 amp=off batch=2 patch=16" and ours["seeds"] == [0, 1]
    assert ours["psnr_y"]["ema"]["deviation"] > 0 and len(ours["psnr_y_of_quarters"]) == 4
    assert pytorch["psnr_y"]["ema"]["mean"] < ours["psnr_y"]["ema"]["mean"]
