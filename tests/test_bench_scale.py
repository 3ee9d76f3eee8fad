"""The benchmark of growth with size, run on small sizes, and its limits."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import bench_scale
from benchmarks.bench_scale import Figure, growth
from benchmarks.scale_cache import hit_rates
from benchmarks.scale_folders import SAMPLES_PER_SHARD, config_for, make_folder, synthetic_plans
from shardgen.generate.inventory import take_inventory
from srshards.shards.opening import open_shards

SIZES = {"photos": 1000, "finished": 200, "shards": 200, "samples": 1_000_000, "block": 100_000}


@pytest.mark.slow
def test_command_measures_every_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_scale, "_tenfold", lambda largest, count: (largest // 10, largest))
    sizes_args = [arg for name, size in SIZES.items() for arg in (f"--{name}", str(size))]
    output = tmp_path / "scale.json"
    result = CliRunner().invoke(
        bench_scale.main, [*sizes_args, "--rounds", "1", "--scratch", str(tmp_path), "-o", str(output)]
    )
    assert result.exit_code in (0, 1), result.output  # timings may miss their limits on a busy machine
    found = json.loads(output.read_text())
    sizes = dict(zip(found["works"], SIZES.values(), strict=True))
    assert list(sizes) == ["plan", "inventory", "start", "schedule", "block"]
    assert all(found["works"][name]["sizes"] == [size // 10, size] for name, size in sizes.items())
    for work in found["works"].values():
        for figure in work["figures"].values():
            assert len(figure["values"]) == len(work["sizes"]) and figure["what"] in result.output
            assert figure["met"] == (figure["growth_per_tenfold"] <= figure["at_most"])
    assert [rate["share"] for rate in found["cache"]] == [0.1, 0.25, 0.5, 0.75, 0.9]
    sent = found["works"]["start"]["figures"]["pickle_bytes"]["values"]
    assert 0 < (sent[1]["median"] - sent[0]["median"]) * 1e6 / 180 < 70  # bytes for a shard
    missed = [f["what"] for work in found["works"].values() for f in work["figures"].values() if not f["met"]]
    assert result.exit_code == bool(missed) and all(what in result.output for what in missed)
    assert [path.name for path in tmp_path.iterdir()] == ["scale.json"]


def test_growth_above_the_limit_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def figures_of(size: int, scratch: Path) -> dict[str, float]:
        return {"linear_s": size * 1e-3, "square_s": size**2 * 1e-6}

    def workloads(**sizes: int) -> list[bench_scale.Workload]:
        figures = tuple(Figure(f"{name}_s", f"a {name} thing, s", 1, 5e-3) for name in ("linear", "square"))
        return [bench_scale.Workload("made up", "things", (100, 1000, 10_000), figures_of, figures)]

    monkeypatch.setattr(bench_scale, "workloads", workloads)
    result = CliRunner().invoke(bench_scale.main, ["--rounds", "2", "-o", str(tmp_path / "scale.json")])
    assert result.exit_code == 1
    assert "Error: growth above the limit: a square thing, s\n" in result.output
    figures = json.loads((tmp_path / "scale.json").read_text())["works"]["made up"]["figures"]
    assert {key: (f["growth_per_tenfold"], f["met"]) for key, f in figures.items()} == {
        "linear_s": (10.0, True),
        "square_s": (100.0, False),
    }


def test_growth_is_per_tenfold_and_ignores_small_figures() -> None:
    assert growth([1, 10, 100], [2.0, 20.0, 600.0], 0.1) == pytest.approx(30)
    assert growth([1, 100], [1.0, 400.0], 0.1) == pytest.approx(20)  # over two powers of ten
    assert growth([1, 10], [1e-6, 4e-3], 5e-3) == 1  # both are below the noise floor
    assert growth([1, 10], [1e-6, 10e-3], 5e-3) == pytest.approx(2)


def test_synthetic_shards_are_accepted_by_generator_and_trainer(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "out", 30, with_markers=True)
    shards = open_shards(folder)
    assert (len(shards.train.records), len(shards.val.records)) == (29, 1)
    assert len(shards.train) == 29 * SAMPLES_PER_SHARD
    (inventory,) = take_inventory(synthetic_plans(30), config_for(tmp_path / "out"))
    assert len(inventory.kept) == 30 and not inventory.to_build and not inventory.stale
    assert sum(path.stat().st_blocks for path in folder.glob("*.tar")) == 0


@pytest.mark.parametrize("rate", hit_rates(), ids=lambda rate: f"{rate['share']:.0%}")
def test_cache_hit_rate_matches_the_model(rate: dict[str, float]) -> None:
    assert rate["simulated"] == pytest.approx(rate["expected"], abs=0.02)
    assert rate["simulated"] < rate["share"]
