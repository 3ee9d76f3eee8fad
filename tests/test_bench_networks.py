"""The benchmarks of the networks: quality at equal CPU time, and memory."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from helpers import make_photos, warm_command

from benchmarks import bench_network_memory, bench_networks
from benchmarks.bench_networks import BEGIN, END, markdown, write_page


def run_networks(folder: Path, minutes: str) -> Result:
    where = ["--photos", folder / "photos", "--holdout", folder / "other", "--work", folder / "work"]
    options = [*where, "--minutes", minutes, "-o", folder / "n.json"]
    return CliRunner().invoke(bench_networks.main, [str(option) for option in options])


@pytest.mark.slow
def test_networks_are_trained_for_equal_times_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[str] = []

    def command(args: Any, **options: Any) -> tuple[float, str]:
        commands.append(" ".join(args))
        return warm_command(args)

    monkeypatch.setattr(bench_networks, "SEEDS", {"ultra_lite": (0, 7)})
    monkeypatch.setattr(bench_networks, "timed_command", command)
    monkeypatch.setattr(bench_networks, "timed_json", lambda args: {"cpu_seconds": [0.5, 0.3, 0.4]})
    make_photos(tmp_path / "photos", 7)
    make_photos(tmp_path / "other", 1)
    result = run_networks(tmp_path, "0.02")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "n.json").read_text())
    settings, (network,) = found["settings"], found["networks"].values()
    assert (settings["train_images"], settings["val_images"]) == (7, 1)
    assert network["parameters"] == 52_968 and network["step_cpu_s"] == 0.4
    first, second = network["seeds"]
    assert (first["seed"], second["seed"]) == (0, 7) and first["steps"] == second["steps"] == 3  # 1.2 s / 0.4 s
    assert first["psnr_y"] != second["psnr_y"] and first["bicubic_psnr_y"] == second["bicubic_psnr_y"] > 10
    assert any("--method matlab" in one for one in commands) and sum("--seed 7" in one for one in commands) == 1

    commands.clear()
    (tmp_path / "work/runs/ultra_lite-7.json").unlink()  # as if interrupted during this training
    again = run_networks(tmp_path, "0.02")
    assert again.exit_code == 0 and [" --seed " in one for one in commands].count(True) == 1, again.output
    assert json.loads((tmp_path / "n.json").read_text())["networks"]["ultra_lite"]["seeds"][0] == first
    other = run_networks(tmp_path, "0.04")
    assert other.exit_code == 2 and "is of 3 steps, not 6; pass another --work" in other.output


def test_the_table_states_the_spread_of_seeds(tmp_path: Path) -> None:
    runs = [
        {
            "seed": seed,
            "steps": 1200,
            "patches_per_s": 50.0 + seed,
            "psnr_y": 30 + seed / 10,
            "ssim_y": 0.8,
            "bicubic_psnr_y": 29.5,
            "bicubic_ssim_y": 0.75,
        }
        for seed in (0, 1, 2)
    ]
    content = {
        "settings": {"minutes": 10.0, "train_images": 630, "val_images": 70},
        "machine": {"cpu": "a processor", "usable_cores": 2},
        "networks": {
            "ultra_lite": {"parameters": 52_968, "seeds": runs},
            "lite": {"parameters": 621_424, "seeds": runs[:1]},
        },
    }
    table = markdown(content)
    assert "| bicubic | | | | 29.50 | 0.7500 |\n" in table
    assert "| `ultra_lite` | 52,968 | 1,200 | 51.0 (50.0 to 52.0) | 30.10 (30.00 to 30.20) | 0.8000 (" in table
    assert "| `lite` | 621,424 | 1,200 | 50.0 | 30.00 | 0.8000 |\n" in table
    conditions = " ".join(table.split())
    assert (
        "on 630 photos for 10 CPU minutes each" in conditions and "Of `ultra_lite`, trained with 3 seeds" in conditions
    )

    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}old\n{END}after\n")
    write_page(page, table)
    write_page(page, table)
    assert page.read_text() == f"before\n{BEGIN}\n{table}\n{END}after\n"
    page.write_text("before\n")
    with pytest.raises(Exception, match="restore these lines"):
        write_page(page, table)
    assert page.read_text() == "before\n"


@pytest.mark.slow
def test_memory_is_measured_and_failures_are_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def timed_json(args: list[str], environment: dict[str, str]) -> dict[str, Any]:
        if "lite" in args:
            raise bench_network_memory.RunFailedError("exit code -9")
        return dict(json.loads(warm_command(args)[1]))

    monkeypatch.setattr(bench_network_memory, "timed_json", timed_json)
    args = ["--batch", "1", "--only", "ultra_lite", "--only", "lite", "--device", "cpu", "-o", str(tmp_path / "m.json")]
    result = CliRunner().invoke(bench_network_memory.main, args)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "m.json").read_text())["networks"]
    assert found["ultra_lite"]["computed"] > 5e6 and set(found["ultra_lite"]) == {"computed", "returning", "keeping"}
    assert found["lite"]["unavailable"] == "exit code -9" and "not measured" in result.output
