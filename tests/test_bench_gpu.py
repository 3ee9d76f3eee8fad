"""The benchmark of training on a GPU, on the CPU: its runs, what it counts, and what it makes of that."""

import json
import threading
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.autograd import DeviceType

from benchmarks import bench_gpu, gpu_kernels, gpu_plain, gpu_report, gpu_run, gpu_window
from benchmarks.common import in_rounds
from benchmarks.gpu_report import NOT_RUN, Key, summarise
from benchmarks.gpu_task import MARK, ONE_BATCH, OUR_CASES, PLAIN, RESIDENT, STREAM, Task, result_in
from trainer.models import network_spec

CPU = torch.device("cpu")


@pytest.mark.slow
def test_the_command_measures_every_case_and_says_what_it_cannot(shards: Path, tmp_path: Path) -> None:
    sizes = ["--models", "ultra_lite", "--batches", "2", "--patch", "32", "--rounds", "1", "--seconds", "0.05"]
    where = [
        "--shards",
        str(shards / "scale_2x"),
        "--device",
        "cpu",
        "--workers",
        "1",
        "-o",
        str(tmp_path / "gpu.json"),
    ]
    done = CliRunner().invoke(bench_gpu.main, [*sizes, *where])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "gpu.json").read_text())
    cases = {case["case"]: case for case in found["cases"]}
    assert set(cases) == {*OUR_CASES, PLAIN} and not any("failures" in case for case in cases.values())
    assert all(case["patches_per_second"]["median"] > 0 and case["finite_loss"] for case in cases.values())
    assert 0 <= cases[RESIDENT]["data_wait"]["median"] <= cases[RESIDENT]["taking_batches"]["median"]
    assert cases[ONE_BATCH]["of_ceiling"]["median"] == 1 and "met" not in cases[PLAIN]["data_wait"]
    assert found["over_plain_loop"][0]["ratio"]["median"] > 0
    assert found["kernels"][0]["floor_ms"]["median"] > 0
    assert "not measured: no CUDA device" in done.output


def test_without_a_gpu_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(bench_gpu.main, ["--shards", str(tmp_path)])
    assert done.exit_code == 2 and "CUDA devices here" in done.output


def test_folders_that_do_not_do_end_with_a_message(shards: Path, tmp_path: Path) -> None:
    for given, says in (
        (["--shards", str(tmp_path)], "manifest.json"),
        (["--shards", str(shards / "scale_2x"), "--patch", "33"], "a multiple of 2 px"),
        ([], "--photos DIR"),
    ):
        done = CliRunner().invoke(bench_gpu.main, ["--device", "cpu", *given])
        assert done.exit_code == 2 and says in done.output


# ---- one process


def task(case: str = STREAM, **changes: Any) -> Task:
    given: dict[str, Any] = {
        "case": case,
        "model": "ultra_lite",
        "batch": 2,
        "patch": 32,
        "shards": "nowhere",
        "pairs": "nowhere",
        "device": "cpu",
        "workers": 0,
        "seconds": 0.01,
    }
    return Task(**{**given, **changes})


def test_a_failure_is_a_result_with_its_traceback() -> None:
    found = gpu_run._measure(task())
    assert found["failed"].startswith("ArgumentError: `path` nowhere") and "Traceback" in found["traceback"][0]
    out_of_memory = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
    assert gpu_run._reason(out_of_memory) == "out of memory (CUDA out of memory. Tried to allocate 2 GiB)"


def test_a_run_that_hangs_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[dict[str, Any]] = []
    monkeypatch.setattr(gpu_run, "_end", ends.append)
    watch = threading.Thread(target=gpu_run._give_up)
    watch.start()
    watch.join()
    assert "hung" in ends[0]["failed"] and any(
        "test_a_run_that_hangs_says_where" in line for line in ends[0]["traceback"]
    )


def test_task_and_result_survive_the_command_line() -> None:
    assert Task.from_json(task().as_json()) == task()
    assert result_in(f'noise\n{MARK}{{"steps": 3}}\nnoise\n') == {"steps": 3}
    assert "failed" in result_in("noise\n")


# ---- what is counted


def test_steps_of_the_warm_up_are_not_counted() -> None:
    calls = count(1)
    done: list[int] = []

    def step() -> torch.Tensor:
        done.append(next(calls))
        return torch.tensor(float(done[-1]))

    window = gpu_window.Window(warm_up_s=0, warm_up_steps=7, seconds=0, steps=5, at_most_s=60)
    found = gpu_window.measure_steps(step, window, CPU, {"wait_s": lambda: float(len(done))})
    assert found["steps"] == 5 == found["wait_s"] and len(done) == 12 and found["finite_loss"]


def test_a_window_that_crawls_is_ended() -> None:
    window = gpu_window.Window(warm_up_s=0, warm_up_steps=1, seconds=0, steps=10**9, at_most_s=0.02)
    found = gpu_window.measure_steps(lambda: torch.tensor(float("nan")), window, CPU, {})
    assert found["seconds"] < 5 and not found["finite_loss"]


def test_a_gpu_is_warmed_up_beyond_what_lay_ready() -> None:
    window = gpu_window.window_for(torch.device("cuda"), 5.0, 65)
    assert window.warm_up_steps == 65 and window.warm_up_s >= 1 and window.seconds == 5
    assert gpu_window.window_for(torch.device("cuda"), 5.0, 0).warm_up_steps == 20


def test_the_floor_is_that_of_the_convolutions() -> None:
    spec = network_spec("lite", 4)
    macs = sum(weight.numel() for weight in spec.build().parameters() if weight.ndim == 4) * 48 * 48
    flops = gpu_kernels.flops_per_step(spec, 16, 48)
    assert flops == pytest.approx(3 * 2 * 16 * macs)
    assert gpu_kernels.flops_per_step(spec, 64, 48) == 4 * flops


def test_kernels_are_added_up_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def event(name: str, us: float, where: DeviceType = DeviceType.CUDA, annotation: bool = False) -> Any:
        elapsed = SimpleNamespace(elapsed_us=lambda: us)
        return SimpleNamespace(name=name, device_type=where, is_user_annotation=annotation, time_range=elapsed)

    step = [event("conv", 100), event("conv", 300), event("relu", 50)]
    others = [event("cudaLaunchKernel", 7, DeviceType.CPU), event("Optimizer.step", 900, annotation=True)]

    class Profile:
        def __init__(self, activities: object) -> None:
            self.steps = len(done)

        def __enter__(self) -> "Profile":
            return self

        def __exit__(self, *error: object) -> None:
            self.steps = len(done) - self.steps

        def events(self) -> list[Any]:
            return step * self.steps + others

    done: list[int] = []
    monkeypatch.setattr(gpu_kernels, "profile", Profile)
    seconds, counts = gpu_kernels._kernel_seconds(lambda: done.append(1), CPU)
    per_step = {name: each / gpu_kernels._STEPS for name, each in seconds.items()}
    assert per_step == pytest.approx({"conv": 400e-6, "relu": 50e-6})
    assert counts["conv"] == 2 * gpu_kernels._STEPS


def test_the_plain_loop_trains_on_pairs_of_the_same_place(shards: Path, tmp_path: Path) -> None:
    number = gpu_plain.write_pairs(shards / "scale_2x", tmp_path / "pairs")
    pairs = gpu_plain.PngPairs(tmp_path / "pairs", 32)
    assert len(pairs) == number > 30
    drawn = [pairs[index] for index in range(12)]
    hr, lr = (np.stack([pair[place].numpy() for pair in drawn]) for place in (0, 1))
    assert hr.shape == (12, 3, 32, 32) and lr.shape == (12, 3, 16, 16) and 0 <= hr.min() < 0.5 < hr.max() <= 1
    small = hr.reshape(12, 3, 16, 2, 16, 2).mean((3, 5))
    apart, strangers = (float(np.abs(small - other).mean()) for other in (lr, np.roll(lr, 1, axis=0)))
    assert apart < strangers / 4


# ---- what is made of it


def run(rate: float, wait: float = 0.0, **kernels: Any) -> dict[str, Any]:
    """A run of ten seconds with so many patches per second, in batches of 16."""
    return {
        "steps": rate * 10 / 16,
        "seconds": 10.0,
        "wait_s": 10 * wait,
        "taking_s": 10 * wait,
        "peak_memory_bytes": 10**9,
        "finite_loss": True,
        "precision": "bfloat16 autocast",
        "kernels": {"flops_per_step": 1e12, "matrix_flops_per_s": 1e14, **(kernels or {"unavailable": "no profiler"})},
        **dict.fromkeys(("device", "torch", "cuda", "cudnn"), "x"),
    }


FAILED = {"failed": "out of memory (2 GiB)", "traceback": ["..."]}
KEYS = {case: Key("standard", 16, case) for case in (PLAIN, STREAM, RESIDENT, ONE_BATCH)}


def made_of(**by_case: dict[int, dict[str, Any]]) -> dict[str, Any]:
    names = {"plain": PLAIN, "stream": STREAM, "resident": RESIDENT, "one": ONE_BATCH}
    return summarise(list(KEYS.values()), {KEYS[names[name]]: runs for name, runs in by_case.items()})


def test_ratios_are_taken_within_each_round() -> None:
    found = made_of(
        stream={0: run(300, 0.004), 1: run(900, 0.02), 2: FAILED},
        plain={0: run(100), 1: run(200), 2: run(1)},
        one={0: run(300), 1: run(1000)},
    )
    assert found["over_plain_loop"][0]["ratio"]["rounds"] == [3, 4.5] and found["over_plain_loop"][0]["met"] is True
    stream = next(case for case in found["cases"] if case["case"] == STREAM)
    assert stream["of_ceiling"]["rounds"] == [1, 0.9] and stream["failures"] == [FAILED]
    assert stream["data_wait"]["median"] == 0.012 and stream["data_wait"]["met"] is False


def test_a_case_that_failed_or_was_not_run_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    found = made_of(stream={0: run(290)}, plain={0: run(100)}, resident={0: FAILED})
    cases = {case["case"]: case for case in found["cases"]}
    assert cases[RESIDENT]["unavailable"] == FAILED["failed"] and cases[ONE_BATCH]["unavailable"] == NOT_RUN
    assert found["over_plain_loop"][0]["met"] is False and "unavailable" in found["kernels"][0]
    gpu_report.show({"settings": {"workers": 2, "patch_px": 192}, **found})
    shown = capsys.readouterr().out
    assert "MISSED" in shown and "out of memory" in shown
    gpu_report.show({"settings": {"workers": 2, "patch_px": 192}, **made_of()})


def test_kernels_stand_between_floor_and_step(capsys: pytest.CaptureFixture[str]) -> None:
    found = made_of(one={0: run(400, kernel_s=0.02, kernels_per_step=812, largest=[])})  # 40 ms per step
    kernels = found["kernels"][0]
    assert kernels["floor_ms"]["median"] == 10 and kernels["kernel_ms"]["median"] == 20
    assert kernels["floor_over_kernels"]["median"] == 0.5 == kernels["kernels_over_step"]["median"]
    gpu_report.show({"settings": {"workers": 2, "patch_px": 192}, **found})
    assert "812" in capsys.readouterr().out


def test_a_round_has_every_case_and_the_plain_loop_trains_standard() -> None:
    wanted = bench_gpu.keys(("lite", "standard"), (16, 64))
    assert len(wanted) == 14 and {key.model for key in wanted if key.case == PLAIN} == {"standard"}
    rounds = list(in_rounds(wanted, 2))
    assert [key for number, key in rounds if number == 1] == wanted[::-1]
    assert {key.model for key in bench_gpu.keys(("lite",), (2,)) if key.case == PLAIN} == {"lite"}
