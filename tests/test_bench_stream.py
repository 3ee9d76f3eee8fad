"""The benchmark of data loading: its measurements, its summary, and the cases that need only PyTorch."""

import ast
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import stream_cases, stream_measure, stream_plot, stream_run
from benchmarks.peers import map_style, png_files, task, torch_loader
from benchmarks.peers.task import Task
from benchmarks.report import Ratio
from benchmarks.stream_measure import CopyOut, Counted, Window, check


@pytest.fixture
def triplets(tmp_path: Path) -> Task:
    """Twelve triplets of 32 px; every pixel encodes its triplet and its position on the LR grid."""
    folder = tmp_path / "triplets"
    folder.mkdir()
    number, y, x = np.indices((12, 8, 8), np.uint8)
    lr = np.stack([number * 20, y * 30, x * 30], axis=-1)
    up = lr.repeat(4, axis=1).repeat(4, axis=2)
    for name, images in (("lr", lr), ("up", up), ("hr", up)):
        np.save(folder / f"{name}.npy", images)
    return Task(store=str(tmp_path / "store"), triplets=str(folder), patch=16, batch=4, workers=0)


def with_settings(given: Task, **changes: Any) -> Task:
    return Task(**{**given.__dict__, **changes})


# ---- measuring


class Stream:
    """Yields `ready` batches at once, and then one every few milliseconds."""

    def __init__(self, ready: int, every_s: float) -> None:
        self._ready, self._every_s = ready, every_s
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        for number in count():
            if number >= self._ready:
                sleep(self._every_s)
            self.taken += 1
            yield number


def test_prefetched_batches_are_not_counted() -> None:
    stream = Stream(ready=500, every_s=0.004)
    window = Window(seconds=0.2, batches=10, warm_up_s=0.05, warm_up_batches=520)
    counted = stream_measure.count(iter(stream), window, stream_measure.leave)
    assert stream.taken == 520 + counted.batches
    assert counted.batches / counted.seconds <= 1 / 0.004
    assert 0.2 <= counted.seconds < 1


def test_slow_cases_continue_until_enough_batches() -> None:
    window = Window(seconds=0.01, batches=30, warm_up_s=0, warm_up_batches=1)
    counted = stream_measure.count(iter(Stream(0, 0.002)), window, stream_measure.leave)
    assert counted.batches == 30


def test_very_slow_cases_end_at_their_time_limit() -> None:
    window = Window(seconds=0.01, batches=10**6, warm_up_s=0, warm_up_batches=1, at_most_s=0.05)
    counted = stream_measure.count(iter(Stream(0, 0.01)), window, stream_measure.leave)
    assert counted.batches <= 6


def test_cpu_time_is_that_of_the_measuring_process() -> None:
    window = Window(seconds=0.1, batches=5, warm_up_s=0, warm_up_batches=1)
    idle = stream_measure.count(iter(Stream(0, 0.01)), window, stream_measure.leave)
    busy = stream_measure.count(count(), window, stream_measure.leave)
    assert busy.main_cpu > 3 * idle.main_cpu


def test_copy_out_reuses_its_memory() -> None:
    copy = CopyOut()
    copy((np.full((2, 3), 1, np.uint8), np.full(4, 2, np.uint8)))
    into = list(copy._into)
    copy((np.full((2, 3), 5, np.uint8), np.full(4, 6, np.uint8)))
    assert all(first is second for first, second in zip(into, copy._into, strict=True))
    assert into[0].tolist() == [[5] * 3] * 2 and into[1].tolist() == [6] * 4


def test_result_line_is_found_in_the_output() -> None:
    assert stream_run.result_in(
        f'noise\n{stream_run.MARK}{{"batches": 3, "seconds": 2.0, "main_cpu": 0.5, "disk_bytes": 0}}\nnoise\n'
    ) == Counted(3, 2.0, 0.5, 0)
    with pytest.raises(ValueError, match="no result"):
        stream_run.result_in("noise\n")


# ---- stores and batches


@pytest.mark.parametrize("input_name", ["up", "lr"])
@pytest.mark.parametrize("variant", ["samples", "assembled"])
def test_pytorch_case_yields_aligned_patches_of_all_triplets(triplets: Task, variant: str, input_name: str) -> None:
    changed = with_settings(triplets, variant=variant, input=input_name)
    stream_run.prepare(torch_loader, changed)
    ratio = 4 if input_name == "lr" else 1
    seen = []
    for hr, small in islice(torch_loader.batches(changed), 6):
        assert hr.shape == (4, 16, 16, 3) and small.shape == (4, 16 // ratio, 16 // ratio, 3)
        assert np.array_equal(hr[:, ::ratio, ::ratio], small)
        seen += hr[:, 0, 0, 0].tolist()
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(0, 240, 20))  # each once in each epoch


def test_png_files_contain_the_same_pixels(triplets: Task) -> None:
    png_files.prepare(triplets)
    hr, _ = task.open_triplets(triplets)
    stored = png_files._open(triplets)
    assert all(np.array_equal(stored(index)[0], hr[index]) for index in range(len(hr)))


def test_crops_reach_every_grid_position(triplets: Task) -> None:
    hr, small = (images[0] for images in task.open_triplets(triplets))
    corners = {tuple(task.cut(triplets, hr, small)[0][0, 0, 1:].tolist()) for _ in range(1000)}
    assert corners == {(30 * y, 30 * x) for y in range(5) for x in range(5)}


def test_endless_shuffle_concatenates_permutations() -> None:
    order = list(islice(map_style.EndlessShuffle(5), 20))
    assert [sorted(order[start : start + 5]) for start in range(0, 20, 5)] == [list(range(5))] * 4


def test_task_round_trip() -> None:
    given = Task(store="a b", variant="png", workers=1, input="lr", crops=4)
    assert Task.from_json(given.as_json()) == given


def test_misaligned_batches_are_rejected() -> None:
    hr = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    check((hr, hr.copy()), 4, 16, 16)
    with pytest.raises(ValueError, match="not aligned"):
        check((hr, np.roll(hr, 4, axis=1)), 4, 16, 16)
    with pytest.raises(ValueError, match="expected uint8"):
        check((hr, hr[:, ::4, ::4]), 4, 16, 16)


PEERS = Path(task.__file__).parent
OURS = {PEERS / "ours.py", PEERS / "online_recipe.py"}  # run in this project's environment
ALLOWED = {*sys.stdlib_module_names, "numpy", "torch"}
RUNNER = [Path(stream_run.__file__), Path(stream_measure.__file__)]
NEAR = {"benchmarks.peers", "benchmarks.stream_measure"}


@pytest.mark.parametrize("path", [*sorted({*PEERS.glob("*.py")} - OURS), *RUNNER], ids=lambda path: path.stem)
def test_scripts_for_other_environments_import_only_numpy_and_torch(path: Path) -> None:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    assert all(name.split(".")[0] in ALLOWED or ".".join(name.split(".")[:2]) in NEAR for name in names)


# ---- the summary


def test_ratios_are_computed_within_each_round_over_the_fastest() -> None:
    ratio = Ratio("r", "a", ("b", "c", "gone"), at_least=2)
    found = ratio.evaluate({"a": [10, 100, 20], "b": [4, 10, 5], "c": [1, 50, 4]})
    assert found["ratio"]["rounds"] == [2.5, 2, 4] and found["ratio"]["median"] == 2.5
    assert found["met"] is True and found["bottom"] == "b" and found["missing"] == ["gone"]


@pytest.mark.parametrize(
    ("target", "text", "met", "missed"),
    [
        ({"at_least": 2}, "at least 2", 2, 1.99),
        ({"above": 1}, "more than 1", 1.01, 1),
        ({"below": 2}, "below 2", 1.99, 2),
    ],
)
def test_targets(target: dict[str, float], text: str, met: float, missed: float) -> None:
    ratio = Ratio("r", "a", ("b",), **target)
    assert ratio.target == text
    assert [ratio.evaluate({"a": [value], "b": [1]})["met"] for value in (met, missed)] == [True, False]


def test_ratios_with_a_missing_side_are_unavailable() -> None:
    ratio = Ratio("r", "a", ("b",), at_least=2)
    assert ratio.evaluate({"a": [1]})["unavailable"] == "b" and ratio.evaluate({"b": [1]})["unavailable"] == "a"


def test_complete_stores_are_not_rewritten(triplets: Task) -> None:
    stream_run.prepare(png_files, triplets)
    written = {path: path.stat().st_mtime_ns for path in triplets.folder.iterdir()}
    stream_run.prepare(png_files, triplets)
    assert len(written) == 25 and written == {path: path.stat().st_mtime_ns for path in triplets.folder.iterdir()}


def test_ratios_refer_to_measured_cases() -> None:
    names = [case.name for case in (*stream_cases.OUR_CASES, *stream_cases.PEER_CASES, *stream_cases.SCALING_CASES)]
    assert len(set(names)) == len(names)
    assert all({ratio.top, *ratio.bottoms} <= {*names, stream_cases.FLOOR} for _, ratio in stream_cases.RATIOS)


def test_plot_is_sorted_by_rate(tmp_path: Path) -> None:
    def case(untouched: float, **more: Any) -> dict[str, Any]:
        both = {"untouched": {"median": untouched}, "copied": {"median": untouched / 2}}
        return {"workers": 2, "patch_px": 192, "patches_per_second": both, **more}

    ours = stream_cases.our_name("npy")
    cases = {"slow": case(150), ours: case(40_000), "fast": case(50_000), "gone": {"unavailable": "no such thing"}}
    cases[stream_cases.our_name("npy", workers=1)] = case(20_000, workers=1)
    assert [bar.untouched for bar in stream_plot.bars_of(cases)] == [50_000, 40_000, 150]
    stream_plot.draw_rates(tmp_path / "new" / "rates.png", cases)
    with Image.open(tmp_path / "new" / "rates.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []}
    assert {(15, 111, 222), (138, 147, 157), (255, 255, 255)} <= colours
