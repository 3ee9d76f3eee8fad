"""The benchmark of a GPU, run on the CPU: every part, its measurements, and what remains when a part fails."""

import json
import os
import re
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from helpers import wait_until
from torch.autograd import DeviceType

from benchmarks import bench_gpu
from benchmarks.common import RESULTS, RunFailedError
from benchmarks.gpu import account, feed, kernels, parts, plain_loop, rates, results, runner, window
from benchmarks.gpu.page import page
from benchmarks.gpu.parts import Part, Settings
from benchmarks.gpu.task import Task
from trainer.models import network_spec
from trainer.training.device import Precision

CPU = torch.device("cpu")
ROOT = Path(__file__).parent.parent


def bench(shards: Path, output: Path, *args: str) -> Result:
    """Run the command with the smallest sizes."""
    sizes = ["--models", "ultra_lite", "--batches", "2", "--patch", "32", "--seconds", "0.01", "--train-seconds", "4"]
    data = ["--shards", str(shards / "scale_2x"), "--device", "cpu", "--workers", "1", "-o", str(output)]
    return CliRunner().invoke(bench_gpu.main, [*sizes, *data, *args])


def fake(measure: str, limit_s: float = 60, **args: Any) -> Task:
    return Task(f"tests.fake_measures:{measure}", measure, limit_s, args)


def without_limits(part: Part) -> Part:
    """Test machines are shared, so anything may take long."""
    tasks = part.tasks
    make = (lambda settings: [replace(task, limit_s=600) for task in tasks(settings)]) if tasks else None
    return Part(part.name, 600, make)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---- the command


@pytest.mark.slow
def test_command_measures_every_part(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_gpu, "PARTS", [without_limits(part) for part in parts.PARTS])
    path = tmp_path / "gpu.json"
    result = bench(shards, path)
    assert result.exit_code == 0, result.output
    found = json.loads(path.read_text())
    measured = {name: part["results"] for name, part in found["parts"].items()}
    assert list(measured) == [part.name for part in parts.PARTS]
    assert {part["status"] for part in found["parts"].values()} == {"complete"}
    assert found["runs"][0]["device"]["torch"] == torch.__version__ and found["runs"][0]["settings"]["workers"] == 1

    assert len(measured["tests"]) > 40
    assert {test["reason"] for test in measured["tests"]} == {"this machine has no CUDA device"}
    (run,) = measured["account"]
    assert run["name"] == "ultra_lite" and run["steps"] > 0 < run["patches_per_second"] and run["wall_s"] >= 1
    assert "cpu" in run["device"]
    (trained,) = measured["rates"]
    for source in ("one batch", "stream", "resident"):
        assert trained[source]["patches_per_second"]["median"] > 0 and trained[source]["finite_loss"]
    assert 0 <= trained["resident"]["data_wait"]["median"] <= trained["resident"]["taking_batches"]["median"]
    assert trained["step_mode"] == "eager" and trained["host_ms"] > 0
    assert measured["plain"][0]["precision"] == "float32" and measured["plain"][0]["finite_loss"]
    copies, loader = measured["loader"]
    assert copies["pageable_gb_per_s"]["median"] > 0 and loader["workers"] == 1 and "finite_loss" not in loader
    assert measured["degradation"][0]["ms_per_batch"]["drawn"]["median"] > 0
    assert measured["kernels"][0]["unavailable"] == "no CUDA device"

    shown = path.with_suffix(".md").read_text()
    assert shown == page(found)
    assert f"| ultra_lite, 2, eager | {trained['one batch']['patches_per_second']['median']:,.0f} (" in shown
    assert "Skipped: this machine has no CUDA device." in shown and "## Wall clock" in shown


@pytest.mark.slow
def test_what_is_measured_outlives_failures_and_the_end(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tasks_that_raise(settings: Settings) -> list[Task]:
        raise LookupError("a mistake")

    measured = [
        fake("figures"),
        fake("fail"),
        fake("figures"),
        fake("hang", 2),
        fake("run_out_of_memory"),
        fake("die"),
        fake("figures"),
    ]
    fakes = [
        Part("account", 60, tasks_that_raise),
        Part("rates", 60, lambda settings: measured),
        Part("plain", 0, lambda settings: [fake("figures")]),
        Part("loader", 60, lambda settings: [fake("figures"), fake("end_the_benchmark")]),
        Part("degradation", 60, lambda settings: [fake("figures")]),
    ]
    monkeypatch.setattr(bench_gpu, "PARTS", fakes)
    path = tmp_path / "gpu.json"
    path.write_text("{}")
    result = bench(shards, path)
    assert result.exit_code == 130 and f"ended; {path} has what was measured" in result.output
    found = json.loads(path.read_text())["parts"]
    assert {name: (part["status"], part["reason"]) for name, part in found.items()} == {
        "account": ("failed", "LookupError: a mistake"),
        "rates": ("failed", "4 of 7 failed"),
        "plain": ("incomplete", "1 of 1 not reached: the time limit of the part was reached"),
        "loader": ("incomplete", "the benchmark was ended in this part"),
        "degradation": ("not reached", ""),
    }
    first, failed, _, hung, exhausted, died, last = found["rates"]["results"]
    assert first["first"] == last["first"] == failed["first"] == 1 and "failed" not in first | last
    assert failed["failed"] == "ValueError: no figure" and "Traceback" in failed["traceback"][0]
    assert hung["failed"] == "exceeded its time limit of 2 s"
    assert any("fake_measures.py" in line and "in hang" in line for line in hung["traceback"])
    wait_until(lambda: not is_running(hung["child"]))
    assert exhausted["failed"] == "out of memory (CUDA out of memory. Tried to allocate 2 GiB)"
    assert died["failed"] == "the process was killed by SIGKILL (no output)"
    assert [result["name"] for result in found["loader"]["results"]] == ["figures"]
    shown = path.with_suffix(".md").read_text()
    assert (
        "| rates | 1 | failed: 4 of 7 failed | " in shown and "| degradation | 1 | not reached | 0 s | 60 s |" in shown
    )


@pytest.mark.slow
def test_a_single_part_replaces_that_of_an_earlier_result(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_gpu, "PARTS", [Part("loader", 60, lambda settings: [fake("fail")])])
    path = tmp_path / "gpu.json"
    path.write_text((RESULTS / "gpu.json").read_text())
    before = json.loads(path.read_text())
    del before["parts"]["kernels"]
    before["parts"]["loader"] = before["parts"].pop("rates")
    before["runs"].append({**before["runs"][0], "date": "later"})
    before["parts"] = {"loader": before["parts"]["loader"], "degradation": {**before["parts"]["degradation"], "run": 1}}
    path.write_text(json.dumps(before))
    result = bench(shards, path, "--only", "loader")
    assert result.exit_code == 1 and "not everything was measured, or a test failed; see" in result.output
    after = json.loads(path.read_text())
    assert after["parts"]["degradation"] == {**before["parts"]["degradation"], "run": 0}
    assert len(after["runs"]) == 2 and after["runs"][0] == before["runs"][1]
    assert after["parts"]["loader"]["run"] == 1 and after["parts"]["loader"]["results"][0]["failed"]


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


def test_shards_are_generated_from_photos(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(bench_gpu, "timed_command", lambda args, limit_s: commands.append(args))
    photo_set = bench_gpu.PhotoSet.of(photos)
    assert bench_gpu._make_shards(photo_set, tmp_path) == tmp_path / "shards" / "scale_4x"
    assert bench_gpu._make_variants(photo_set, tmp_path) == str(tmp_path / "variants" / "scale_4x")
    assert [command[command.index("--val-fraction") + 1] for command in commands] == ["0.25", "0"]
    assert commands[1][commands[1].index("--variants") + 1] == "8"


def test_variants_that_take_too_long_are_left_out(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(args: list[str], limit_s: float) -> None:
        raise RunFailedError(f"did not finish within {limit_s:.0f} s")

    monkeypatch.setattr(bench_gpu, "timed_command", late)
    assert bench_gpu._make_variants(bench_gpu.PhotoSet.of(photos), tmp_path) is None


# ---- the parts


ON_GPU = Settings(
    device="cuda",
    models=("ultra_lite", "lite", "standard"),
    batches=(16, 64),
    patch=192,
    scale=4,
    workers=14,
    seconds=0.35,
    train_seconds=60,
    shards="shards",
    variants="variants",
    pairs="pairs",
    scratch="scratch",
)
TASKS = {part.name: part.tasks(ON_GPU) for part in parts.PARTS if part.tasks}


def test_the_limits_add_up_to_eight_minutes() -> None:
    limits = {part.name: part.limit_s for part in parts.PARTS}
    both = max(limits.pop(parts.TESTS), limits.pop(parts.COMPILE))  # at the same time
    before = parts.START_S + parts.DATA_LIMIT_S + parts.VARIANTS_LIMIT_S
    assert before + both + sum(limits.values()) <= parts.TOTAL_S == 8 * 60
    assert next(iter(parts.PARTS)).name == parts.TESTS


def test_every_step_is_measured_the_fastest_first() -> None:
    measured = [(task.args["model"], task.args["batch"], task.args["step"]) for task in TASKS["rates"]]
    for model in ON_GPU.models:
        steps = {step for name, batch, step in measured if (name, batch) == (model, 16)}
        assert steps == {"eager", "graph", "compiled", "compiled-graph"}
    assert ("standard", 64, "compiled-graph") not in measured and ("lite", 64, "compiled-graph") in measured
    fed = [bool(task.args["sources"]) for task in TASKS["rates"]]
    assert fed == sorted(fed, reverse=True) and sum(fed) == 6
    assert TASKS["rates"][0].args["sources"] == ["stream", "resident"]


def test_tasks_of_the_other_parts() -> None:
    assert {task.name: task.args["batches"] for task in TASKS["compile"]} == {
        "ultra_lite": [16, 64],
        "lite": [16, 64],
        "standard": [16],
    }
    assert [(task.name, task.args["seconds"]) for task in TASKS["account"]] == [("lite", 60), ("ultra_lite", 30)]
    assert [task.name for task in TASKS["plain"]] == ["standard, 16"]
    assert [task.name for task in TASKS["loader"]] == ["copies", "14", "14, variants", "8", "4", "2"]
    degraded = [(task.args["crop"], task.args["count_launches"]) for task in TASKS["degradation"]]
    assert degraded == [(400, False), (400, True)]  # the profiler may slow down what follows
    assert parts.PARTS[-1].name == "kernels" and len(TASKS["kernels"]) == 6
    assert TASKS["kernels"][-1].name == "standard, 64, graph"
    for task in (task for tasks in TASKS.values() for task in tasks):
        assert Task.from_json(task.as_json()) == task


# ---- processes


@pytest.mark.slow
def test_tests_go_on_after_one_that_hangs_or_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_some.py").write_text("""
import os, time, pytest

def test_passes(): pass
def test_fails(): assert 1 == 2, "wrong"
def test_hangs(): time.sleep(600)
def test_dies(): os._exit(7)
@pytest.mark.skip(reason="no device")
def test_skipped(): pass
def test_is_last(): pass
""")
    monkeypatch.setattr(runner, "TEST_FOLDER", str(tmp_path))
    found = {each["name"].partition("::")[2]: each for each in runner.Tests(60, test_limit_s=3).results()}
    assert {name: each["outcome"] for name, each in found.items()} == {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_hangs": "failed",
        "test_dies": "failed",
        "test_skipped": "skipped",
        "test_is_last": "passed",
    }
    assert found["test_fails"]["reason"].startswith("AssertionError: wrong") and found["test_fails"]["traceback"]
    assert found["test_hangs"]["reason"] == "exceeded its time limit of 3 s"
    assert "exited with code 7" in found["test_dies"]["reason"]
    assert found["test_skipped"]["reason"] == "no device"


def test_tests_that_are_not_reached_are_named() -> None:
    script = """
from benchmarks.gpu.task import Events
import time
events = Events()
events.emit(collected=["a", "b", "c"])
events.emit(start="a")
events.emit(end="a", outcome="passed", seconds=0.1)
time.sleep(600)
"""
    found = list(runner.Tests(5, [sys.executable, "-c", script]).results())
    assert [each["name"] for each in found] == ["a", "b", "c"] and found[0]["outcome"] == "passed"
    assert {each["not_reached"] for each in found[1:]} == {"the time limit of the part was reached"}


def test_tests_that_cannot_be_collected_are_reported() -> None:
    script = "import sys; sys.exit('ModuleNotFoundError: No module named pytest')"
    (found,) = runner.Tests(60, [sys.executable, "-c", script]).results()
    assert found["name"] == "tests/gpu" and found["outcome"] == "failed"
    assert "exited with code 1 (ModuleNotFoundError: No module named pytest)" in found["reason"]


def test_background_tasks_have_processes_of_their_own() -> None:
    with runner.Background([fake("figures"), fake("hang"), fake("figures", value=2)], 5) as background:
        first, hung, second = background.results()
        assert second["first"] == 2 and first["pid"] != second["pid"]
        assert hung["failed"] == "the time limit of the part was reached" and first["name"] == "figures"
    wait_until(lambda: not is_running(hung["child"]))


def test_a_process_performs_many_tasks() -> None:
    with runner.Worker() as worker:
        first, second = runner.run_tasks(worker, [fake("figures"), fake("figures")], 60)
    assert first["pid"] == second["pid"]
    wait_until(lambda: not is_running(first["pid"]))


# ---- measuring


def test_windows_follow_a_warm_up_that_is_not_counted() -> None:
    steps: list[None] = []

    def step() -> torch.Tensor:
        steps.append(None)
        return torch.tensor(1.0)

    lengths = window.Window(warm_up_s=0, warm_up_steps=7, seconds=0, steps=5, at_most_s=60)
    found = window.measure_steps(step, 4, lengths, CPU, {"waiting": lambda: float(len(steps))})
    assert found["steps"] == [5, 5, 5] and len(steps) == 22 and found["finite_loss"]
    for rate, waiting in zip(found["patches_per_second"]["rounds"], found["waiting"]["rounds"], strict=True):
        assert rate == pytest.approx(4 * waiting, rel=1e-3)


def test_slow_windows_end_at_their_time_limit() -> None:
    lengths = window.Window(warm_up_s=0, warm_up_steps=1, seconds=0, steps=10**9, at_most_s=0.02)
    found = window.measure_steps(lambda: torch.tensor(float("nan")), 1, lengths, CPU, {})
    assert not found["finite_loss"]


def test_gpu_warm_up_exceeds_the_prefetched_batches() -> None:
    lengths = window.window_for(torch.device("cuda"), 5.0, 65)
    assert lengths.warm_up_steps == 65 and lengths.warm_up_s > 0 and lengths.seconds == 5
    assert window.window_for(torch.device("cuda"), 5.0, 0).warm_up_steps == 10


def test_waiting_for_the_device_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    numbers = count()

    def step() -> None:
        if next(numbers) == 12:
            raise RuntimeError("called a synchronizing CUDA operation\nmore")

    assert rates._synchronisation(step) is None
    assert rates._synchronisation(step) == "called a synchronizing CUDA operation"
    assert modes == ["error", "default"] * 2


def test_compiling_reports_each_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[tuple[int, str]] = []
    monkeypatch.setattr(rates, "_plan", lambda **settings: planned.append((settings["batch_size"], settings["step"])))
    monkeypatch.setattr(rates, "_started", lambda plan: (None, 14.04))
    found = list(rates.compile_step("lite", [16, 64], 192, "shards", "cpu"))
    assert found == [{"16": 14.0}, {"64": 14.0}] and planned == [(16, "compiled"), (64, "compiled")]


def test_copies_are_timed() -> None:
    (found,) = feed.measure_copies("cpu", 1 << 16)
    assert len(found["pageable_gb_per_s"]["rounds"]) == 3 and found["pageable_gb_per_s"]["min"] > 0


def test_flops_are_those_of_the_convolutions() -> None:
    spec = network_spec("lite", 4)
    macs = sum(weight.numel() for weight in spec.build().parameters() if weight.ndim == 4) * 48 * 48
    flops = kernels.flops_per_step(spec, 16, 48)
    assert flops == pytest.approx(3 * 2 * 16 * macs)
    assert kernels.flops_per_step(spec, 64, 48) == 4 * flops


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
    cuda = torch.device("cuda")
    monkeypatch.setattr(kernels, "profile", Profile)
    monkeypatch.setattr(kernels, "synchronise", lambda device: None)
    monkeypatch.setattr(kernels, "matrix_flops_per_s", lambda device, dtype: 1e14)
    spec, precision = network_spec("lite", 4), Precision(torch.bfloat16)
    found = kernels.measure_kernels(spec, 16, 48, precision, lambda: steps.append(1), cuda)
    assert found["kernel_ms"] == 0.45 and found["kernels_per_step"] == 3 and found["matrix_tflops_per_s"] == 100
    assert found["floor_ms"] == pytest.approx(found["flops_per_step"] / 1e11, rel=1e-3)
    names = [(kernel["name"], kernel["per_step"]) for kernel in found["largest"]]
    assert names == [("conv", 2), ("relu", 1)]
    assert kernels.measure_kernels(spec, 16, 48, precision, print, CPU) == {"unavailable": "no CUDA device"}


def test_plain_loop_trains_on_aligned_pairs(shards: Path, tmp_path: Path) -> None:
    number = plain_loop.write_pairs(shards / "scale_2x", tmp_path / "pairs")
    pairs = plain_loop.PngPairs(tmp_path / "pairs", 32)
    assert len(pairs) == number > 30
    drawn = [pairs[index] for index in range(12)]
    hr, lr = (np.stack([images.numpy() for images in stream]) for stream in zip(*drawn, strict=True))
    assert hr.shape == (12, 3, 32, 32) and lr.shape == (12, 3, 16, 16) and 0 <= hr.min() < 0.5 < hr.max() <= 1
    small = hr.reshape(12, 3, 16, 2, 16, 2).mean((3, 5))
    aligned, shuffled = (float(np.abs(small - other).mean()) for other in (lr, np.roll(lr, 1, axis=0)))
    assert aligned < shuffled / 4


# ---- the account of a run

ACCOUNT = {
    "steps_s": 55.5,
    "data_wait_s": 0.25,
    "validation_s": 1.0,
    "saving_s": 0.5,
    "start_up_s": 4.0,
    "rest_s": 0.75,
    "steps_share": 0.957,
}
FAKE_RUN = """
import json, pathlib, signal, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--out") + 1], "run")
folder.mkdir()
entries = [
    {"event": "train", "step": 50, "patches_per_s": 700, "data_wait": 0.01},
    {"event": "train", "step": 100, "patches_per_s": 900, "data_wait": 0.03},
    {"event": "val", "step": 100},
    {"event": "account", "step": 100, **json.loads(%r)},
]
print("Device   cuda (A GPU), CUDA graph", flush=True)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
(folder / "journal.jsonl").write_text("".join(json.dumps(entry) + "\\n" for entry in entries))
signal.sigwait([signal.SIGINT])
sys.exit(130)
"""


def account_of(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(account, "python_module", lambda name, *args: [sys.executable, "-c", script, *map(str, args)])
    (found,) = account.measure_account("lite", 0.2, 16, 192, "shards", "cuda", 2, str(folder))
    return found


def test_account_is_that_of_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = account_of(FAKE_RUN % json.dumps(ACCOUNT), tmp_path, monkeypatch)
    assert found.pop("wall_s") >= 0.2
    assert found == {
        "device": "cuda (A GPU), CUDA graph",
        "steps": 100,
        "patches_per_second": 800,
        "data_wait": 0.02,
        "validations": 1,
        "account": ACCOUNT,
    }
    assert os.listdir(tmp_path) == []


def test_account_of_a_failed_run_has_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="the run exited with code 1: out of memory in step 1"):
        account_of("import sys; sys.exit('out of memory in step 1')", tmp_path, monkeypatch)


# ---- the page


@pytest.fixture
def committed() -> dict[str, Any]:
    return json.loads((RESULTS / "gpu.json").read_text())


def test_committed_page_is_that_of_the_result(committed: dict[str, Any]) -> None:
    assert (RESULTS / "gpu.md").read_text() == page(committed)


def test_documented_rates_are_those_of_the_result(committed: dict[str, Any]) -> None:
    text = (ROOT / "docs/explanation/performance.md").read_text()
    rows = re.findall(r"^\| `(\w+)`, (\d+) \| ([\d.]+) ms \| ([\d,]+) \| ([\d,]+|not measured) \|", text, re.MULTILINE)
    assert len(rows) == 6
    found = committed["parts"]["rates"]["results"]
    for model, batch, ms, one_batch, stream in rows:
        cases = [each for each in found if each["name"].startswith(f"{model}, {batch},")]
        trained = max(cases, key=lambda each: each["one batch"]["patches_per_second"]["median"])
        assert trained["one batch"]["step_ms"]["median"] == pytest.approx(float(ms), rel=0.01)
        assert f"{trained['one batch']['patches_per_second']['median']:,.0f}" == one_batch
        rate = trained.get("stream", {}).get("patches_per_second")
        assert stream == (f"{rate['median']:,.0f}" if rate else "not measured")


def test_page_shows_what_only_a_gpu_measures(committed: dict[str, Any]) -> None:
    trained = committed["parts"]["rates"]["results"]
    case = "lite, 64, compiled-graph"
    kernels = committed["parts"]["kernels"]
    kernels["results"] = [each for each in kernels["results"] if each["name"] == case]
    lite = next(each for each in trained if each["name"] == case)
    lite |= {"synchronisation": "called a synchronizing CUDA operation", "host_ms": 0.125}
    rate = lite["stream"]
    others = {"run": 0, "status": "complete", "reason": "", "seconds": 9.0, "limit_s": 20}
    waiting = {"name": "test_b", "not_reached": "the time limit of the part was reached"}
    plain = {
        "name": "lite, 64",
        "model": "lite",
        "batch": 64,
        **rate,
        "patches_per_second": {"median": 2000, "rounds": [1]},
    }
    loaded = {"name": "14, variants", "batch": 64, "gb_per_s": 5.25, **rate}
    for name, found in {
        "tests": [{"name": "test_a", "outcome": "failed", "reason": "wrong | odd"}, waiting],
        "compile": [{"name": "lite", "16": 14.0, "64": 13.5}],
        "account": [
            {"name": "lite", "wall_s": 66.0, "device": "cuda (A GPU)", "steps": 4000, "validations": 3}
            | {"patches_per_second": 9000, "data_wait": 0.01, "account": ACCOUNT},
            {"name": "ultra_lite", "wall_s": 9.0, "device": "cuda (A GPU)", "steps": 4, "validations": 0}
            | {"patches_per_second": 9000, "data_wait": 0.01, "account": {**ACCOUNT, "steps_share": None}},
        ],
        "plain": [plain, {"name": "standard, 16", "failed": "exceeded its time limit of 20 s"}],
        "loader": [
            {"name": "copies", **dict.fromkeys(("pinned_gb_per_s", "pageable_gb_per_s"), rate["step_ms"])},
            loaded,
        ],
    }.items():
        committed["parts"][name] = {**others, "results": found}
    shown = page(committed)
    for text in (
        "2 tests: 1 failed, 1 not reached.",
        "| `test_a` | failed | wrong \\| odd |",
        "| `test_b` | not reached | the time limit of the part was reached |",
        "| lite | 64 | 13.5 |",
        "| lite | 55.50 | 0.25 | 1.00 | 0.50 | 4.00 | 0.75 | 95.7% |",
        "| ultra_lite | 55.50 | 0.25 | 1.00 | 0.50 | 4.00 | 0.75 |  |",
        f"| {case} | 22,098 (22,092-22,099) | 2.90 | 0.12 | 0.8 | 0.79 | called a synchronizing CUDA operation |",
        "| lite, 64 | 2,000 | 22,059 (22,021-22,074) | 11.03x |",
        "- standard, 16: exceeded its time limit of 20 s",
        "Copies to the device: page-locked memory 2.9 (2.9-2.9) GB/s, pageable memory 2.9 (2.9-2.9) GB/s.",
        "| 14, variants | 64 | 22,059 (22,021-22,074) | 5.25 |",
        "| 64 | reading, workers: 14, variants | 2.90 |",
        f"| {case} | 0.700 | 3.017 | 23.2% | 104.2% | 313 |",
    ):
        assert text in shown


def test_waiting_steps_fail_a_part(tmp_path: Path) -> None:
    run = {"machine": {"usable_cores": 1}, "device": {}, "commit": None, "date": "", "command": ""}
    found = results.Results(tmp_path / "gpu.json", run, parts.PARTS[3:4], {})
    found.begin("rates")
    found.add({"name": "lite", "synchronisation": "called a synchronizing CUDA operation"})
    assert found.end() == "failed (1 of 1 failed)" and not found.are_complete
