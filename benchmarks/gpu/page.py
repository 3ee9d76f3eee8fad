"""The page of figures: a function of `gpu.json` alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.report import spread_text
from trainer.training.account import PHASE_NAMES

_SOURCES = ("one batch", "stream", "resident")
_MAX_KERNELS = 5
_MAX_NAME = 80

Part = Mapping[str, Any]


def page(content: Mapping[str, Any]) -> str:
    """Return the page in Markdown."""
    parts = content["parts"]
    blocks = [
        "# Figures of a GPU",
        "Written by `bench_gpu` together with the JSON file of the same name, which has all details. "
        "[benchmarks/README.md](../README.md#bench_gpu-training-on-a-gpu) describes the method. Figures are medians "
        "(minimum-maximum) of three windows, or single ones.",
        _runs(content["runs"]),
        "## Parts",
        _table(("part", "run", "state", "time", "limit"), [_part_row(name, part) for name, part in parts.items()]),
    ]
    for name, section in _SECTIONS.items():
        if name in parts and parts[name]["results"]:
            blocks += section(parts[name], content)
    return "\n\n".join(blocks) + "\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _runs(runs: Sequence[Mapping[str, Any]]) -> str:
    columns = ("run", "device", "driver", "PyTorch, CUDA, cuDNN", "CPU cores", "commit", "date", "command")
    return _table(columns, [_run_row(number, run) for number, run in enumerate(runs, 1)])


def _run_row(number: int, run: Mapping[str, Any]) -> list[str]:
    device = run["device"]
    versions = ", ".join(str(device[name]) for name in ("torch", "cuda", "cudnn") if device.get(name))
    return [
        str(number),
        str(device.get("device", "unknown")),
        str(device.get("driver") or "not recorded"),
        versions or "not recorded",
        str(run["machine"]["usable_cores"]),
        run["commit"] or "not recorded",
        run["date"],
        f"`{run['command']}`",
    ]


def _part_row(name: str, part: Part) -> list[str]:
    state = f"{part['status']}: {part['reason']}" if part["reason"] else part["status"]
    times = [f"{part[key]:.0f} s" if part[key] is not None else "" for key in ("seconds", "limit_s")]
    return [name, str(part["run"] + 1), state, *times]


def _spread(values: Mapping[str, Any], digits: int) -> str:
    """Format a spread; a single figure without its range."""
    return spread_text(values, digits) if len(values["rounds"]) > 1 else f"{values['median']:,.{digits}f}"


def _why_missing(part: Part) -> list[str]:
    """Return a list of the results without figures."""
    reasons = [
        f"- {result['name']}: {result.get('failed') or 'not reached, ' + result['not_reached']}"
        for result in part["results"]
        if "failed" in result or "not_reached" in result
    ]
    return ["\n".join(reasons)] if reasons else []


def _tests(part: Part, content: Mapping[str, Any]) -> list[str]:
    outcomes = [result.get("outcome", "not reached") for result in part["results"]]
    counts = {name: outcomes.count(name) for name in ("passed", "failed", "skipped", "not reached")}
    summary = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    rows = [
        [f"`{result['name']}`", outcome, result.get("reason") or result.get("not_reached", "")]
        for result, outcome in zip(part["results"], outcomes, strict=True)
        if outcome in ("failed", "not reached")
    ]
    table = [_table(("test", "outcome", "reason"), rows)] if rows else []
    skipped = {result["reason"] for result in part["results"] if result.get("outcome") == "skipped"}
    return ["## Tests", f"{len(outcomes)} tests: {summary}.", *(f"Skipped: {why}." for why in sorted(skipped)), *table]


def _compile(part: Part, content: Mapping[str, Any]) -> list[str]:
    rows = [
        [result["name"], size, f"{seconds:.1f}"]
        for result in part["results"]
        for size, seconds in result.items()
        if size.isdecimal()
    ]
    note = "Time of the first steps while the tests ran; less where PyTorch's cache on the disk had the code."
    return ["## Compiling", note, _table(("network", "batch size", "s"), rows), *_why_missing(part)]


def _account(part: Part, content: Mapping[str, Any]) -> list[str]:
    good = [result for result in part["results"] if "account" in result]
    rows = [
        [
            result["name"],
            *(f"{result['account'][phase]:.2f}" for phase in PHASE_NAMES),
            _share(result["account"]["steps_share"]),
        ]
        for result in good
    ]
    phases = ("network", *PHASE_NAMES.values(), "steps, first to last")
    blocks = [_table(phases, rows)] if rows else []
    blocks += [f"{r['name']}: {r['unavailable']}." for r in part["results"] if "unavailable" in r]
    ran = [result for result in part["results"] if "wall_s" in result]
    of_run = [
        [
            result["name"],
            f"{result['wall_s']:.1f}",
            f"{result['steps']:,}",
            f"{result['patches_per_second']:,.0f}",
            f"{result['data_wait']:.2%}",
            str(result["validations"]),
            result["device"],
        ]
        for result in ran
    ]
    columns = ("network", "process, s", "steps", "patches/s", "waiting for data", "validations", "device and step")
    blocks += [_table(columns, of_run)] if of_run else []
    note = (
        "Seconds of the wall clock of a run with the default settings, stopped by a signal. The last column is the "
        "share of the steps in the time from the first step to the last."
    )
    return ["## Wall clock", note, *blocks, *_why_missing(part)]


def _share(value: float | None) -> str:
    """Format a share, None if there was no step after the start-up."""
    return "" if value is None else f"{value:.1%}"


def _rates(part: Part, content: Mapping[str, Any]) -> list[str]:
    results = _rates_in(content)
    columns = ("network, batch size, step", "patches/s", "step, ms", "host, ms", "start-up, s", "memory, GB", "waits")
    blocks = ["## Training", _RATES_NOTE, _table(columns, map(_rate_row, results))]
    fed = [(result, source) for result in results for source in _SOURCES[1:] if source in result]
    of_source = (
        "network, batch size, step",
        "source",
        "patches/s",
        "of one batch",
        "taking batches",
        "waiting for data",
    )
    blocks += [_table(of_source, [_fed_row(*pair) for pair in fed])] if fed else []
    return [*blocks, *_why_missing(part)]


_RATES_NOTE = (
    "One batch repeated, which is the ceiling. Host: time for which a step occupies the training process. Waits: "
    "whether ten steps wait for the device."
)


def _rate_row(result: Mapping[str, Any]) -> list[str]:
    one = result["one batch"]
    waits = result.get("synchronisation", "not checked")
    return [
        _case(result),
        _spread(one["patches_per_second"], 0),
        f"{one['step_ms']['median']:.2f}",
        f"{result['host_ms']:.2f}" if "host_ms" in result else "",
        f"{result['start_up_s']:.1f}",
        f"{one['peak_memory_bytes'] / 1e9:.2f}",
        "no" if waits is None else str(waits),
    ]


def _fed_row(result: Mapping[str, Any], source: str) -> list[str]:
    found, one = result[source], result["one batch"]
    return [
        _case(result),
        source,
        _spread(found["patches_per_second"], 0),
        f"{found['patches_per_second']['median'] / one['patches_per_second']['median']:.3f}",
        f"{found['taking_batches']['median']:.2%}",
        f"{found['data_wait']['median']:.2%}",
    ]


def _case(result: Mapping[str, Any]) -> str:
    return f"{result['model']}, {result['batch']}, {result['step']}"


def _plain(part: Part, content: Mapping[str, Any]) -> list[str]:
    rows = []
    for result in (result for result in part["results"] if "step_ms" in result):
        best = _best_stream(content, result)
        ratio = best["patches_per_second"]["median"] / result["patches_per_second"]["median"] if best else None
        rows.append(
            [
                result["name"],
                _spread(result["patches_per_second"], 0),
                _spread(best["patches_per_second"], 0) if best else "not measured",
                f"{ratio:.2f}x" if ratio else "",
            ]
        )
    columns = ("network, batch size", "plain loop, patches/s", "trainer, from shards, patches/s", "ratio")
    note = "The usual loop: float32, a `DataLoader` of PNG pairs, Adam, `.item()` in every step."
    return ["## Plain loop", note, _table(columns, rows), *_why_missing(part)]


def _best_stream(content: Mapping[str, Any], like: Mapping[str, Any]) -> Any:
    """Return the figures of the fastest step from shards, with the network and batch size of a result."""
    same = [
        rate["stream"]
        for rate in _rates_in(content)
        if "stream" in rate and (rate["model"], rate["batch"]) == (like["model"], like["batch"])
    ]
    return max(same, key=lambda stream: stream["patches_per_second"]["median"], default=None)


def _loader(part: Part, content: Mapping[str, Any]) -> list[str]:
    copies = [result for result in part["results"] if "pageable_gb_per_s" in result]
    rates = [
        f"{kind} memory {_spread(result[key], 1)} GB/s"
        for result in copies
        for kind, key in (("page-locked", "pinned_gb_per_s"), ("pageable", "pageable_gb_per_s"))
        if key in result
    ]
    rows = [
        [
            result["name"],
            str(result["batch"]),
            _spread(result["patches_per_second"], 0),
            f"{result['gb_per_s']:.2f}",
        ]
        for result in part["results"]
        if "gb_per_s" in result
    ]
    note = (
        "Batches that arrive on the device without a training. `variants`: shards with 8 degraded LR images per sample."
    )
    return [
        "## Loader",
        note,
        _table(("workers", "batch size", "patches/s", "GB/s"), rows),
        *([f"Copies to the device: {', '.join(rates)}."] if rates else []),
        *_why_missing(part),
    ]


def _degradation(part: Part, content: Mapping[str, Any]) -> list[str]:
    good = [result for result in part["results"] if "ms_per_batch" in result]
    columns = ("batch size", "kernels prepared, ms", "kernels drawn, ms", "patches/s", "launches", "memory, GB")
    blocks = [_table(columns, map(_degradation_row, good)), *_why_missing(part)]
    beside = [row for result in good for row in _beside(result, content)]
    if beside:
        both = ("batch size", "beside", "ms per batch", "with degradation on the device", "ratio")
        blocks += [
            "Training with this degradation in front, if both times add up. Reading shards with 8 degraded variants "
            "per sample instead takes no time of the device.",
            _table(both, beside),
        ]
    note = "Real-ESRGAN's second-order degradation on the device, per batch of crops that are there already."
    return ["## Degradation on the GPU", note, *blocks]


def _degradation_row(result: Mapping[str, Any]) -> list[str]:
    ms, launches = result["ms_per_batch"], result.get("launches", {"unavailable": ""})
    return [
        str(result["batch"]),
        _spread(ms["prepared"], 2),
        _spread(ms["drawn"], 2),
        _spread(result["patches_per_second"]["prepared"], 0),
        f"{launches['per_batch']:.0f}" if "per_batch" in launches else launches["unavailable"],
        f"{result['peak_memory_bytes'] / 1e9:.2f}",
    ]


def _beside(result: Mapping[str, Any], content: Mapping[str, Any]) -> list[list[str]]:
    """Return a row for the fastest step of each network, and one for reading shards with variants."""
    batch, degradation_ms = result["batch"], result["ms_per_batch"]["prepared"]["median"]
    fastest: dict[str, float] = {}
    for rate in (rate for rate in _rates_in(content) if rate["batch"] == batch):
        ms = rate["one batch"]["step_ms"]["median"]
        fastest[rate["model"]] = min(ms, fastest.get(rate["model"], ms))
    rows = [
        [str(batch), f"step of `{model}`", f"{ms:.2f}", f"{ms + degradation_ms:.2f}", f"{1 + degradation_ms / ms:.2f}x"]
        for model, ms in fastest.items()
    ]
    loaded = content["parts"].get("loader", {"results": ()})["results"]
    for loader in (loader for loader in loaded if loader["name"].endswith("variants") and loader.get("batch") == batch):
        if "step_ms" in loader:
            rows.append(
                [str(batch), f"reading, workers: {loader['name']}", f"{loader['step_ms']['median']:.2f}", "", ""]
            )
    return rows


def _kernels(part: Part, content: Mapping[str, Any]) -> list[str]:
    good = [result for result in part["results"] if "kernel_ms" in result]
    missing = [f"{result['name']}: {result['unavailable']}." for result in part["results"] if "unavailable" in result]
    columns = ("network, batch size, step", "floor, ms", "kernels, ms", "floor / kernels", "kernels / step", "kernels")
    largest = [
        [_case(result), f"`{kernel['name'][:_MAX_NAME]}`", *_kernel_cells(kernel, result["kernel_ms"])]
        for result in good
        for kernel in result["largest"][:_MAX_KERNELS]
    ]
    tables = [
        _table(columns, [_kernel_row(result, content) for result in good]),
        f"The {_MAX_KERNELS} with the longest total time:",
        _table(("network, batch size, step", "kernel", "calls per step", "ms per step", "of all"), largest),
    ]
    note = (
        "Kernels of a step with one batch. The floor is the time for the arithmetic of the convolutions at the rate of "
        "a large matrix product."
    )
    return ["## Kernels", note, *(tables if good else []), *missing, *_why_missing(part)]


def _kernel_row(result: Mapping[str, Any], content: Mapping[str, Any]) -> list[str]:
    same = [rate["one batch"] for rate in _rates_in(content) if rate["name"] == result["name"]]
    return [
        _case(result),
        f"{result['floor_ms']:.3f}",
        f"{result['kernel_ms']:.3f}",
        f"{result['floor_ms'] / result['kernel_ms']:.1%}",
        f"{result['kernel_ms'] / same[0]['step_ms']['median']:.1%}" if same else "",
        f"{result['kernels_per_step']:.0f}",
    ]


def _kernel_cells(kernel: Mapping[str, Any], kernel_ms: float) -> list[str]:
    ms = 1000 * kernel["seconds_per_step"]
    return [f"{kernel['per_step']:g}", f"{ms:.3f}", f"{ms / kernel_ms:.1%}"]


def _rates_in(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the results of `rates` that have the rate with one batch."""
    return [result for result in content["parts"].get("rates", {"results": ()})["results"] if "one batch" in result]


_SECTIONS: dict[str, Callable[[Part, Mapping[str, Any]], list[str]]] = {
    "tests": _tests,
    "compile": _compile,
    "account": _account,
    "rates": _rates,
    "plain": _plain,
    "loader": _loader,
    "degradation": _degradation,
    "kernels": _kernels,
}
