"""The benchmark of training on a GPU, run on the CPU: its cases, measurements and summary."""

import json
import threading
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers import warm_command
from torch.autograd import DeviceType

from benchmarks import bench_gpu, gpu_kernels, gpu_plain, gpu_report, gpu_run, gpu_window
from benchmarks.common import in_rounds
from benchmarks.gpu_report import NOT_RUN, Key, summarise
from benchmarks.gpu_task import MARK, ONE_BATCH, OUR_CASES, PLAIN, RESIDENT, STREAM, Task, result_in
from trainer.models import network_spec

CPU = torch.device("cpu")


@pytest.mark.slow
def test_command_measures_every_case(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first case has a process of its own."""
    runs = chain([bench_gpu.timed_command], repeat(warm_command))
    monkeypatch.setattr(bench_gpu, "timed_command", lambda args: next(runs)(args))
    sizes = ["--models", "ultra_lite", "--batches", "2", "--patch", "32", "--rounds", "1", "--seconds", "0.05"]
    data = ["--shards", str(shards / "scale_2x"), "-o", str(tmp_path / "gpu.json")]
    result = CliRunner().invoke(bench_gpu.main, [*sizes, *data, "--device", "cpu", "--workers", "1"])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "gpu.json").read_text())
    cases = {case["case"]: case for case in found["cases"]}
    assert set(cases) == {*OUR_CASES, PLAIN} and not any("failures" in case for case in cases.values())
    assert all(case["patches_per_second"]["median"] > 0 and case["finite_loss"] for case in cases.values())
    assert 0 <= cases[RESIDENT]["data_wait"]["median"] <= cases[RESIDENT]["taking_batches"]["median"]
    assert cases[ONE_BATCH]["of_ceiling"]["median"] == 1 and "met" not in cases[PLAIN]["data_wait"]
    assert found["over_plain_loop"][0]["ratio"]["median"] > 0
    assert found["kernels"][0]["floor_ms"]["median"] > 0
    assert "not measured: no CUDA device" in result.output


def test_missing_gpu_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(bench_gpu.main, ["--shards", str(tmp_path)])
    assert result.exit_code == 2 and "this machine has no CUDA device" in result.output


def test_invalid_shards_are_reported(shards: Path, tmp_path: Path) -> None:
    for args, message in (
        (["--shards", str(tmp_path)], "manifest.json"),
        (["--shards", str(shards / "scale_2x"), "--patch", "33"], "a multiple of 2 px"),
        ([], "--photos DIR"),
    ):
        result = CliRunner().invoke(bench_gpu.main, ["--device", "cpu", *args])
        assert result.exit_code == 2 and message in result.output


# ---- one run


TASK = Task(
    case=STREAM,
    model="ultra_lite",
    batch=2,
    patch=32,
    shards="nowhere",
    pairs="nowhere",
    device="cpu",
    workers=0,
    seconds=0.01,
)


def test_failures_are_results_with_a_traceback() -> None:
    found = gpu_run._measure(TASK)
    assert found["failed"].startswith("ArgumentError: `path` nowhere") and "Traceback" in found["traceback"][0]
    out_of_memory = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
    assert gpu_run._reason(out_of_memory) == "out of memory (CUDA out of memory. Tried to allocate 2 GiB)"


def test_hanging_runs_report_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[dict[str, Any]] = []
    monkeypatch.setattr(gpu_run, "_end", results.append)
    watch = threading.Thread(target=gpu_run._report_hang)
    watch.start()
    watch.join()
    assert "hung" in results[0]["failed"]
    assert any("test_hanging_runs_report_their_traceback" in line for line in results[0]["traceback"])


def test_task_and_result_round_trip() -> None:
    assert Task.from_json(TASK.as_json()) == TASK
    assert result_in(f'noise\n{MARK}{{"steps": 3}}\nnoise\n') == {"steps": 3}
    assert "failed" in result_in("noise\n")


# ---- measuring


def test_warm_up_steps_are_not_counted() -> None:
    steps: list[None] = []

    def step() -> torch.Tensor:
        steps.append(None)
        return torch.tensor(1.0)

    window = gpu_window.Window(warm_up_s=0, warm_up_steps=7, seconds=0, steps=5, at_most_s=60)
    found = gpu_window.measure_steps(step, window, CPU, {"wait_s": lambda: float(len(steps))})
    assert found["steps"] == 5 == found["wait_s"] and len(steps) == 12 and found["finite_loss"]


def test_slow_windows_end_at_their_time_limit() -> None:
    window = gpu_window.Window(warm_up_s=0, warm_up_steps=1, seconds=0, steps=10**9, at_most_s=0.02)
    found = gpu_window.measure_steps(lambda: torch.tensor(float("nan")), window, CPU, {})
    assert found["seconds"] < 5 and not found["finite_loss"]


def test_gpu_warm_up_exceeds_the_prefetched_batches() -> None:
    window = gpu_window.window_for(torch.device("cuda"), 5.0, 65)
    assert window.warm_up_steps == 65 and window.warm_up_s >= 1 and window.seconds == 5
    assert gpu_window.window_for(torch.device("cuda"), 5.0, 0).warm_up_steps == 20


def test_flops_are_those_of_the_convolutions() -> None:
    spec = network_spec("lite", 4)
    macs = sum(weight.numel() for weight in spec.build().parameters() if weight.ndim == 4) * 48 * 48
    flops = gpu_kernels.flops_per_step(spec, 16, 48)
    assert flops == pytest.approx(3 * 2 * 16 * macs)
    assert gpu_kernels.flops_per_step(spec, 64, 48) == 4 * flops


def test_kernel_times_are_summed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def event(name: str, us: float, where: DeviceType = DeviceType.CUDA, annotation: bool = False) -> Any:
        elapsed = SimpleNamespace(elapsed_us=lambda: us)
        return SimpleNamespace(name=name, device_type=where, is_user_annotation=annotation, time_range=elapsed)

    step = [event("conv", 100), event("conv", 300), event("relu", 50)]
    others = [event("cudaLaunchKernel", 7, DeviceType.CPU), event("Optimizer.step", 900, annotation=True)]

    class Profile:
        def __init__(self, activities: object) -> None:
            self.steps = len(steps)

        def __enter__(self) -> "Profile":
            return self

        def __exit__(self, *error: object) -> None:
            self.steps = len(steps) - self.steps

        def events(self) -> list[Any]:
            return step * self.steps + others

    steps: list[int] = []
    monkeypatch.setattr(gpu_kernels, "profile", Profile)
    seconds, counts = gpu_kernels._kernel_seconds(lambda: steps.append(1), CPU)
    per_step = {name: each / gpu_kernels._STEPS for name, each in seconds.items()}
    assert per_step == pytest.approx({"conv": 400e-6, "relu": 50e-6})
    assert counts["conv"] == 2 * gpu_kernels._STEPS


def test_plain_loop_trains_on_aligned_pairs(shards: Path, tmp_path: Path) -> None:
    number = gpu_plain.write_pairs(shards / "scale_2x", tmp_path / "pairs")
    pairs = gpu_plain.PngPairs(tmp_path / "pairs", 32)
    assert len(pairs) == number > 30
    drawn = [pairs[index] for index in range(12)]
    hr, lr = (np.stack([images.numpy() for images in stream]) for stream in zip(*drawn, strict=True))
    assert hr.shape == (12, 3, 32, 32) and lr.shape == (12, 3, 16, 16) and 0 <= hr.min() < 0.5 < hr.max() <= 1
    small = hr.reshape(12, 3, 16, 2, 16, 2).mean((3, 5))
    aligned, shuffled = (float(np.abs(small - other).mean()) for other in (lr, np.roll(lr, 1, axis=0)))
    assert aligned < shuffled / 4


# ---- the summary


def run(rate: float, wait: float = 0.0, **kernels: Any) -> dict[str, Any]:
    """A run of ten seconds with this number of patches per second, in batches of 16."""
    return {
        "steps": rate * 10 / 16,
        "seconds": 10.0,
        "wait_s": 10 * wait,
        "taking_s": 10 * wait,
        "peak_memory_bytes": 10**9,
        "finite_loss": True,
        "precision": "bfloat16 autocast",
        "step_mode": "eager",
        "start_up_s": 2.0,
        "kernels": {"flops_per_step": 1e12, "matrix_flops_per_s": 1e14, **(kernels or {"unavailable": "no profiler"})},
        **dict.fromkeys(("device", "torch", "cuda", "cudnn"), "x"),
    }


FAILED = {"failed": "out of memory (2 GiB)", "traceback": ["..."]}
KEYS = {case: Key("standard", 16, case) for case in (PLAIN, STREAM, RESIDENT, ONE_BATCH)}


def summary_of(**by_case: dict[int, dict[str, Any]]) -> dict[str, Any]:
    names = {"plain": PLAIN, "stream": STREAM, "resident": RESIDENT, "one": ONE_BATCH}
    return summarise(list(KEYS.values()), {KEYS[names[name]]: runs for name, runs in by_case.items()})


def test_ratios_are_computed_within_each_round() -> None:
    found = summary_of(
        stream={0: run(300, 0.004), 1: run(900, 0.02), 2: FAILED},
        plain={0: run(100), 1: run(200), 2: run(1)},
        one={0: run(300), 1: run(1000)},
    )
    assert found["over_plain_loop"][0]["ratio"]["rounds"] == [3, 4.5] and found["over_plain_loop"][0]["met"] is True
    stream = next(case for case in found["cases"] if case["case"] == STREAM)
    assert stream["of_ceiling"]["rounds"] == [1, 0.9] and stream["failures"] == [FAILED]
    assert stream["data_wait"]["median"] == 0.012 and stream["data_wait"]["met"] is False


def test_failed_and_missing_cases_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    found = summary_of(stream={0: run(290)}, plain={0: run(100)}, resident={0: FAILED})
    cases = {case["case"]: case for case in found["cases"]}
    assert cases[RESIDENT]["unavailable"] == FAILED["failed"] and cases[ONE_BATCH]["unavailable"] == NOT_RUN
    assert found["over_plain_loop"][0]["met"] is False and "unavailable" in found["kernels"][0]
    gpu_report.show({"settings": {"workers": 2, "patch_px": 192}, **found})
    shown = capsys.readouterr().out
    assert "MISSED" in shown and "out of memory" in shown
    gpu_report.show({"settings": {"workers": 2, "patch_px": 192}, **summary_of()})


def test_kernel_times_are_compared_with_floor_and_step(capsys: pytest.CaptureFixture[str]) -> None:
    found = summary_of(one={0: run(400, kernel_s=0.02, kernels_per_step=812, largest=[])})  # 40 ms per step
    kernels = found["kernels"][0]
    assert kernels["floor_ms"]["median"] == 10 and kernels["kernel_ms"]["median"] == 20
    assert kernels["floor_over_kernels"]["median"] == 0.5 == kernels["kernels_over_step"]["median"]
    gpu_report.show({"settings": {"workers": 2, "patch_px": 192}, **found})
    assert "812" in capsys.readouterr().out


def test_rounds_contain_every_case() -> None:
    wanted = bench_gpu.keys(("lite", "standard"), (16, 64))
    assert len(wanted) == 22 and {key.model for key in wanted if key.case == PLAIN} == {"standard"}
    rounds = list(in_rounds(wanted, 2))
    assert [key for number, key in rounds if number == 1] == wanted[::-1]
    assert {key.model for key in bench_gpu.keys(("lite",), (2,)) if key.case == PLAIN} == {"lite"}
