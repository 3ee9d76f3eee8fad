"""`trainer models`, and the arithmetic and memory that it states."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Result, trainer

from trainer.catalogue import NETWORKS
from trainer.commands import models
from trainer.models import BuiltInSpec, NetworkSpec, cost
from trainer.models.cost import training_cost
from trainer.models.spandrel_network import spandrel_spec

SMALL_NETWORKS = {
    "compact": BuiltInSpec("compact", 2, 4, 1),
    "rrdb, unshuffled": BuiltInSpec("rrdb", 2, 4, 1, 2),
}


def small(name: str) -> NetworkSpec:
    """Return a small network; those of spandrel are made late, so that the others are tested without it."""
    if name in SMALL_NETWORKS:
        return SMALL_NETWORKS[name]
    arguments: dict[str, dict[str, Any]] = {
        "SPAN": {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8},  # a constant outside its buffers
        "SwinIR": {  # a mask that is computed on the CPU
            "embed_dim": 8,
            "depths": (2,),
            "num_heads": (2,),
            "window_size": 4,
            "upsampler": "pixelshuffledirect",
        },
    }
    return spandrel_spec(name, 2, arguments[name])


ALL_SMALL = (*SMALL_NETWORKS, "SPAN", "SwinIR")

# Parameters at 4x. Of most, traiNNer-redux publishes the exact number (docs/source/resources/benchmark4x.csv); of
# dat_light, atd_light and rgt_s the papers, in thousands: 573K, 769K, 10.20M; of drct_s nobody does.
PARAMETERS = {
    "ultra_lite": 52_968,
    "lite": 621_424,
    "standard": 16_697_987,
    "compact_ultra": 325_488,
    "compact_super_ultra": 52_968,
    "esrgan_lite": 5_021_155,
    "span": 2_621_964,
    "span_s": 2_236_728,
    "plksr": 7_386_096,
    "plksr_tiny": 2_370_544,
    "realplksr": 7_389_680,
    "realplksr_tiny": 2_372_080,
    "mosr": 4_287_600,
    "mosr_t": 609_888,
    "safmn": 239_520,
    "safmn_l": 5_600_816,
    "omnisr": 805_376,
    "swinir_s": 929_628,
    "dat_light": 572_766,
    "atd_light": 768_792,
    "drct_s": 2_459_787,
    "rgt_s": 10_198_767,
    "hat_s": 9_621_183,
}


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    """The JSON of the command, by name."""
    result = trainer("models", "--json")
    assert result.code == 0, result
    found = json.loads(result.out)
    assert (found["scale"], found["batch_size"]) == (4, 16)
    return {network["name"]: network for network in found["networks"]}


def listed(monkeypatch: pytest.MonkeyPatch, width: int, *args: object) -> Result:
    """Run the command in a terminal of that width, with few networks."""
    monkeypatch.setattr(models, "columns", lambda stream: width)
    few = {name: NETWORKS[name] for name in ("ultra_lite", "compact_super_ultra", "esrgan_lite", "span")}
    monkeypatch.setattr(models, "NETWORKS", few)
    result = trainer("models", *args)
    assert result.code == 0 and result.err == "", result
    assert max(map(len, result.out.splitlines())) <= width
    return result


# ---- cost


def test_the_cost_of_a_small_network_is_that_computed_by_hand() -> None:
    batch, px, features, scale = 3, 10, 4, 2
    found = training_cost(SMALL_NETWORKS["compact"], batch, px)
    weights = 9 * (3 * features + features * features + features * 3 * scale**2)
    assert found.parameters == weights + features + features + 3 * scale**2 + 2 * features  # biases, slopes of PReLU
    assert found.forward_flops == 2 * weights * px**2
    # Kept for the backward pass: the images, two features before and after PReLU, the sign of the difference.
    kept = 4 * batch * px**2 * (3 + 2 * 2 * features + 3 * scale**2)
    states = 4 * 4 * found.parameters  # weights, their EMA, two moments
    target = passing = 4 * batch * 3 * (scale * px) ** 2  # passing: of the output and its gradients before the shuffle
    gradients = 4 * found.parameters
    assert states + kept + target <= found.training_bytes <= states + kept + target + 4 * passing + gradients
    without_ema = training_cost(SMALL_NETWORKS["compact"], batch, px, has_ema=False)
    assert found.training_bytes - without_ema.training_bytes == 4 * found.parameters


@pytest.mark.parametrize("name", ALL_SMALL)
def test_shapes_take_the_memory_of_real_tensors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = training_cost(small(name), 2, 12).training_bytes
    monkeypatch.setattr(cost, "_META", torch.device("cpu"))
    monkeypatch.setattr(cost, "_on_meta_device", lambda spec: spec.build())
    assert abs(training_cost(small(name), 2, 12).training_bytes - expected) <= 3 * 4  # the constant of SPAN and SwinIR


@pytest.mark.parametrize("name", ALL_SMALL)
def test_repeated_operations_cost_what_executed_ones_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = training_cost(small(name), 2, 12)
    monkeypatch.setattr(cost, "_is_new", lambda operation: False)
    assert training_cost(small(name), 2, 12) == expected


def test_memory_grows_with_the_batch_and_arithmetic_does_not() -> None:
    one, two, three = (training_cost(SMALL_NETWORKS["rrdb, unshuffled"], batch, 16) for batch in (1, 2, 3))
    assert one.forward_flops == two.forward_flops == three.forward_flops
    assert three.training_bytes - two.training_bytes == two.training_bytes - one.training_bytes > 0


# ---- the command


@pytest.mark.slow
def test_every_network_has_all_figures(everything: dict[str, Any]) -> None:
    assert list(everything) == list(NETWORKS)
    for name, found in everything.items():
        assert found["missing"] is None and 4 in found["scales"], name
        assert found["parameters"] == PARAMETERS[name] and found["forward_flops"] > 1e8, name
        assert found["training_bytes"] > 4 * 4 * found["parameters"], name
        row = NETWORKS[name]
        stated = (found["lr"], found["use"], found["source"], found["architecture"])
        assert stated == (row.lr, row.use, row.source, row.architecture)
    swinir, dat = everything["swinir_s"], everything["dat_light"]
    assert (swinir["multiple_px"], swinir["patch_size"]) == (8, 192)
    assert dat["patch_size"] == -(-192 // (4 * dat["multiple_px"])) * 4 * dat["multiple_px"] > 192


def test_a_wide_terminal_has_one_line_per_network(monkeypatch: pytest.MonkeyPatch) -> None:
    header, *lines = listed(monkeypatch, 120).out.splitlines()
    assert header.split() == ["network", "params", "GFLOP", "memory", "lr", "scales", "use"]
    assert lines[0].split() == [
        "ultra_lite",
        "53.0k",
        "0.24",
        "107.5",
        "MB",
        "0.004",
        "1-8x",
        *lines[0].split()[7:],
    ]
    assert lines[0].endswith(f"  {NETWORKS['ultra_lite'].use}") and lines[0].index("short") == header.index("use")
    legend = " ".join(lines[-3:])
    assert "At 4x. " in legend and "192 px HR" in legend and "float32 with --batch-size 16" in legend


def test_a_narrow_terminal_has_the_use_below_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    header, *lines = listed(monkeypatch, 80).out.splitlines()
    assert header.split()[-1] == "scales" and lines[0].endswith("1-8x")
    assert lines[1] == f"    {NETWORKS['ultra_lite'].use}"
    assert not any(line != line.rstrip() for line in (header, *lines))


def test_a_very_narrow_terminal_describes_the_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = listed(monkeypatch, 60).out.split("\n\n")
    assert [text.split("\n")[0] for text in printed] == ["ultra_lite", "compact_super_ultra", "esrgan_lite", "span"]


def test_a_network_is_described_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = " ".join(listed(monkeypatch, 100, "span", "--scale", 2).out.split())
    row = NETWORKS["span"]
    assert (
        row.source in printed
        and row.use in printed
        and f"feature_channels {row.arguments['feature_channels']}" in printed
    )
    assert "parameters" in printed and "at 2x" in printed and "patch of 96 px LR" in printed
    assert "scales 1-4x, 8x" in printed and f"--lr {row.lr:g}" in printed


def test_networks_without_the_scale_have_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {line.split()[0]: line.split() for line in listed(monkeypatch, 120, "--scale", 8).out.splitlines() if line}
    assert lines["esrgan_lite"][1:5] == ["-", "-", "-", "0.0002"] and lines["esrgan_lite"][5] == "1-4x"
    assert "-" not in lines["ultra_lite"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("standard", "--scale", 8), "--scale 8: standard supports only 1-4x; pass one of these"),
        (("--scale", 9), "9 is not in the range 1<=x<=8"),
    ],
)
def test_wrong_names_and_scales_are_refused(args: tuple[object, ...], message: str) -> None:
    result = trainer("models", *args)
    assert result.code == 2 and message in result.err and result.out == "", result


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "spann",
            "unknown model 'spann'; did you mean 'span' or 'span_s'? (for all names, run `python -m trainer models`)",
        ),
        (
            "standart",
            "unknown model 'standart'; did you mean 'standard'? (for all names, run `python -m trainer models`)",
        ),
        ("zzz", "unknown model 'zzz'; for all names, run `python -m trainer models`"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_names(name: str, message: str, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"model: {name}\n")
    for args, where in (
        (("models", name), ""),
        (("--shards", "x", "--model", name), "Invalid value for '--model': "),
        (("--shards", "x", "--config", config), f"{config}: model: "),
    ):
        result = trainer(*args)
        assert result.code == 2 and result.out == ""
        assert result.err.splitlines()[-1] == f"Error: {where}{message}"


def test_without_spandrel_its_networks_are_listed_with_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    monkeypatch.setattr("trainer.models.spandrel_import.importlib.import_module", missing)
    result = listed(monkeypatch, 120)
    lines = {line.split()[0]: line.split() for line in result.out.splitlines() if line}
    assert lines["span"][1:6] == ["-", "-", "-", f"{NETWORKS['span'].lr:g}", "-"]
    assert lines["ultra_lite"][1] == "53.0k"
    assert result.out.count("Not computed: ") == 1 and "pip install 'sr-shards[arches]'" in " ".join(result.out.split())
    found = json.loads(trainer("models", "span", "--json").out)["networks"][0]
    assert found["parameters"] is None and found["scales"] is None and "need spandrel" in found["missing"]
