"""Figures on the pages under docs/: those of tables are the results of the benchmarks, rounded.

test_translations.py compares the figures of a Chinese page with those of the English one.
"""

import json
from pathlib import Path
from statistics import median

import pytest
import yaml
from test_readmes import sections

from shardgen.degradation.steps import STEPS
from srshards.format import CODECS, CROP_CODECS
from trainer.catalogue import default_model

ROOT = Path(__file__).parent.parent
OPTIONS = ("docs/how-to/choosing-options.md", "docs/how-to/choosing-options.zh.md")
PERFORMANCE = "docs/explanation/performance.md"
DEGRADATIONS = "docs/explanation/degradations.md"
RAW_STORES = ("LMDB raw", "WebDataset raw", "wids raw", "litdata raw", "MosaicML raw", "Arrow raw")


def results(name: str) -> dict[str, dict]:
    return json.loads((ROOT / "benchmarks/results" / f"{name}.json").read_text())


def table(page: str, first: str, columns: int) -> dict[str, list[str]]:
    """Return the rows of the only table whose header begins with `first` and has that many columns.

    A row is the cells after the first, which is its key, without the mark of bold type.
    """
    tables = [[_cells(row) for row in rows] for section in sections(page) for rows in section.tables]
    (found,) = (rows for rows in tables if rows[0][0] == first and len(rows[0]) == columns)
    return {row[0]: row[1:] for row in found[2:]}


def _cells(row: str) -> list[str]:
    return [cell.strip().replace("**", "") for cell in row.removeprefix("|").removesuffix("|").split(" |")]


def row_of(rows: dict[str, list[str]], start: str) -> list[str]:
    (row,) = (row for key, row in rows.items() if key.startswith(start))
    return row


def text_of(page: str) -> str:
    return " ".join((ROOT / page).read_text().split())


def spread(found: dict[str, float], digits: int = 0) -> str:
    middle, low, high = (f"{found[name]:,.{digits}f}" for name in ("median", "min", "max"))
    return f"{middle} ({low}\u2013{high})"


# ---- choosing options


@pytest.mark.parametrize("page", OPTIONS)
@pytest.mark.parametrize("codec", CODECS)
def test_storage(page: str, codec: str) -> None:
    rows = [(key, row) for key, row in table(page, "`--codec`", 7).items() if key.startswith(f"`{codec}`")]
    for (key, row), (is_without, name) in zip(rows, ((False, "with up"), (True, "without up")), strict=True):
        sizes = [results("choices")["codecs"][codec][name][scale] for scale in ("2x", "3x", "4x")]
        assert ("`--no-up`" in key) is is_without
        assert row == [*(f"{size / 1e6:.2f}" for size in sizes), *(f"{size / 1e4:.0f}" for size in sizes)]


@pytest.mark.parametrize("page", OPTIONS)
@pytest.mark.parametrize("method", ["nearest", "linear", "cubic", "area", "lanczos", "matlab"])
def test_methods(page: str, method: str) -> None:
    psnr, ms, *_ = row_of(table(page, "`--method`", 5), f"`{method}`")
    assert psnr == f"{results('choices')['methods'][method]['mean']:.2f} dB"
    assert ms == f"{cost(method, 'shrink', 4)['median_ms']['median']:.2f}"


def cost(name: str, direction: str, scale: int) -> dict[str, dict[str, float]]:
    (found,) = (
        each
        for each in results("degrade")["costs"]
        if (each["name"], each["direction"], each["scale"]) == (name, direction, scale)
    )
    return found


@pytest.mark.parametrize("page", OPTIONS)
@pytest.mark.parametrize("codec", CODECS)
def test_codecs(page: str, codec: str) -> None:
    size, generated, loaded, _ = row_of(table(page, "`--codec`", 5), f"`{codec}`")
    assert size == f"{results('choices')['codecs'][codec]['with up']['4x'] / 1e6:.2f}"
    if codec != "tlc":  # estimated from that of png
        rate = results("generate")["cases"][f"{codec} 4x"]["photos_per_second"]["work"]
        assert generated == f"{rate['median']:.0f}"
    case = f"ours {codec}, up, 2 workers{'' if codec in CROP_CODECS else ', 4 crops'}"
    assert loaded == f"{results('stream')['cases'][case]['patches_per_second']['untouched']['median']:,.0f}"


# ---- performance


@pytest.mark.parametrize(
    ("start", "case"),
    [
        ("`shardgen`, `npy` (", "npy 4x"),
        ("`shardgen`, `png`", "png 4x"),
        ("`shardgen`, `webp`", "webp 4x"),
        ("`shardgen`, `npy`, 2\u00d7", "npy 2,3,4x"),
        ("minimal pipeline: ", "floor 4x"),
        ("minimal pipeline, flushed ", "floor+fsync 4x"),
        ("minimal pipeline that writes nothing", "floor, no write 4x"),
        ("minimal pipeline in OpenCV", "OpenCV floor 4x"),
        ("a typical script, `multi", "PNG script, pool"),
        ("a typical script, one ", "PNG script, one process"),
        ("img2dataset, PNG", "img2dataset png"),
        ("img2dataset, JPEG", "img2dataset jpg"),
    ],
)
def test_rates_of_generating(start: str, case: str) -> None:
    rate = results("generate")["cases"][case]["photos_per_second"]["work"]
    assert row_of(table(PERFORMANCE, "case", 2), start) == [spread(rate)]


@pytest.mark.parametrize(
    ("start", "ratio", "digits"),
    [
        ("`npy` / minimal pipeline in the page cache", "npy / floor, 4x", 2),
        ("`npy` / minimal pipeline flushed to disk", "npy / floor+fsync, 4x", 2),
        ("`npy` / typical script", "npy / pooled PNG script", 1),
        ("`npy` / img2dataset's PNG", "npy / img2dataset PNG", 1),
        ("time for three scales", "time of three scales / of one", 2),
        ("`webp` / typical script", "webp / pooled PNG script", 2),
    ],
)
def test_ratios_of_generating(start: str, ratio: str, digits: int) -> None:
    target, shown, verdict = row_of(table(PERFORMANCE, "ratio", 4), start)
    (found,) = (each for each in results("generate")["ratios"] if each["name"] == ratio)
    assert target == found["target"] and shown == spread(found["work"], digits)
    assert verdict == ({True: "met", False: "missed"}[found["work"]["met"]] if target else "slower")


def test_planning() -> None:
    shown = table(PERFORMANCE, "measure", 3)
    worst = [check["worst"] for check in results("plan")["checks"]]
    assert [row[1].split(" (")[0] for row in shown.values()] == [
        f"{worst[0]:.1f} s",
        f"{worst[1]:.0f} MB",
        f"{worst[2]:.2f} s",
        f"{worst[3]:.0f} MB",
        f"{worst[4]:.2f} MB",
    ]


@pytest.mark.parametrize("model", ["ultra_lite", "lite", "standard"])
def test_training_steps(model: str) -> None:
    found = results("train_step_cpu")["networks"][model]
    device = {default_model("cpu"): "CPU", default_model("cuda"): "GPU"}.get(model)
    default = f" (default on a {device})" if device else ""
    row = table(PERFORMANCE, "network", 7)[f"`{model}`{default}"]
    parameters, step, rate, waiting, utilisation, _ = row
    assert parameters == f"{found['parameters']:,}"
    assert float(step.removesuffix(" s")) == pytest.approx(found["step_seconds"]["median"], rel=0.02)
    assert float(rate) == pytest.approx(found["patches_per_second"]["median"], rel=0.05)
    assert float(waiting.removesuffix(" %")) == pytest.approx(100 * found["data_wait"]["median"], rel=0.2)
    assert utilisation == f"{found['floor_over_step']['median']:.2f}"


@pytest.mark.parametrize("model", ["ultra_lite", "lite", "standard"])
def test_shares_of_the_wall_clock_time(model: str) -> None:
    steps, _, *shares, share = table(PERFORMANCE, "network", 10)[f"`{model}`"]
    found = results("account")["networks"][model]
    total = sum(found["seconds"].values())
    assert int(steps.replace(",", "")) == found["steps"]
    assert shares == [f"{100 * seconds / total:.2f} %" for seconds in found["seconds"].values()]
    assert share == f"{100 * found['steps_share']:.2f} %"


def test_rates_of_data_loading() -> None:
    (rows,) = (
        {cells[0]: cells[1:] for cells in map(_cells, rows[2:])}
        for section in sections(PERFORMANCE)
        for rows in section.tables
        if rows[0].startswith("| case | patches/s, untouched |")
    )
    cases = results("stream")["cases"]
    augmented = {name.replace(", 2 workers", ""): name for name in cases if "augmented" in name}
    for name, (untouched, copied, cpu) in rows.items():
        case = cases.get(name) or cases[augmented[name]]
        rates = case["patches_per_second"]
        assert [untouched, copied] == [spread(rates["untouched"]), spread(rates["copied"])], name
        assert cpu == f"{case['main_cpu']['median']:.2f}", name


def test_ratios_of_data_loading() -> None:
    shown = table(PERFORMANCE, "ratio", 5)
    found = results("stream")["ratios"]
    untouched = [spread(each["ratio"], 2) for each in found if each["touch"] == "untouched"]
    assert [row[1] for row in shown.values()] == untouched
    verdicts = {True: "met", False: "missed", None: ""}
    assert [row[3] for row in shown.values()] == [
        verdicts[each["met"]] for each in found if each["touch"] == "untouched"
    ]


@pytest.mark.parametrize(
    ("start", "peers"),
    [
        ("npy / PyTorch's", ("PyTorch, samples",)),
        ("npy / fastest store", RAW_STORES),
        ("npy / online", ("online",)),
        ("npy / FFCV", ("FFCV raw",)),
    ],
)
def test_ratios_of_copied_batches(start: str, peers: tuple[str, ...]) -> None:
    cases = results("stream")["cases"]
    ours, *others = (
        cases[name]["patches_per_second"]["copied"]["rounds"] for name in ("ours npy, up, 2 workers", *peers)
    )
    ratios = [rate / max(peer) for rate, *peer in zip(ours, *others, strict=True)]
    found = {"median": median(ratios), "min": min(ratios), "max": max(ratios)}
    assert row_of(table(PERFORMANCE, "ratio", 5), start)[2] == spread(found, 2)


# ---- degradations


@pytest.mark.parametrize(
    ("start", "case"),
    [
        ("online: the recipe in the data workers", "online, 400 px"),
        ("online, on all of HR", "online, 512 px"),
        ("shards with 8 variants", "shards, 8 variants"),
        ("shards with 1 variant", "shards, 1 variant"),
    ],
)
def test_rates_of_degraded_patches(start: str, case: str) -> None:
    rate = results("degrade")["training"]["cases"][case]["patches_per_second"]
    assert row_of(table(DEGRADATIONS, "case", 2), start) == [spread(rate)]


def test_gain_of_degrading_in_advance() -> None:
    training = results("degrade")["training"]
    crop, whole = (spread(each["ratio"]).replace(" ", "\u00d7 ") for each in training["ratios"])
    epochs = [f"{each['epochs']['median']:.1f}" for each in training["paid_back"]]
    eight, one = (training["generated"][f"shards, {count}"] for count in ("8 variants", "1 variant"))
    text = text_of(DEGRADATIONS)
    for claim in (
        f"are {crop} as fast as the first row and {whole} as fast as the second",
        f"recovered after {epochs[0]} epochs compared with the first row, {epochs[1]} compared with the second",
        f"takes {eight['bytes_per_photo'] / 1e6:.2f} MB with 8 variants and {one['bytes_per_photo'] / 1e6:.2f} MB with",
        f"2 cores generate {eight['photos_per_second']['median']:.1f} photos/s",
    ):
        assert claim in text, claim


@pytest.mark.parametrize(
    ("row", "method", "scale"),
    [
        ("`cubic`", "cubic", 4),
        ("`area`", "area", 4),
        ("`lanczos`", "lanczos", 4),
        ("`matlab`, 2\u00d7", "matlab", 2),
        ("`matlab`, 3\u00d7, 510 px", "matlab", 3),
        ("`matlab`", "matlab", 4),
    ],
)
def test_costs_of_methods(row: str, method: str, scale: int) -> None:
    shrink, enlarge = (spread(cost(method, name, scale)["median_ms"], 2) for name in ("shrink", "enlarge"))
    assert table(DEGRADATIONS, "method", 3)[row] == [shrink, "as `cubic`" if method == "area" else enlarge]


@pytest.mark.parametrize("recipe", ["realesrgan", "bsrgan-light"])
def test_costs_of_recipes(recipe: str) -> None:
    found = cost(recipe, "recipe", 4)
    assert table(DEGRADATIONS, "recipe, one LR image", 4)[f"`{recipe}`"] == [
        spread(found["median_ms"], 1),
        f"{found['mean_ms']['median']:.1f}",
        f"{found['p90_ms']['median']:.1f}",
    ]


def test_steps_are_those_of_the_code() -> None:
    """Every step with all settings, defaults and descriptions, in the order of `recipe steps`."""
    expected = []
    for name, step in STEPS.items():
        expected.append([f"`{name}`", "", "", step.summary])
        for key, setting in step.settings.items():
            expected.append(["", f"`{key}`", f"`{_as_yaml(setting.default)}`", setting.what])
    (shown,) = (
        [_cells(row) for row in rows[2:]]
        for section in sections("docs/reference/degradation-steps.md")
        for rows in section.tables
        if rows[0].startswith("| step | setting |")
    )
    assert shown == expected


def _as_yaml(default: object) -> str:
    plain = dict(default) if isinstance(default, dict) else list(default) if isinstance(default, tuple) else default
    return yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=1000).split("\n")[0]
