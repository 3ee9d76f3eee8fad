"""Commands with networks of any architecture: `--init`, resuming without its file, evaluate, upscale, export."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml
from helpers import Result, make_photo, trainer
from PIL import Image
from test_trainer_ranks import ranks_of, wait
from torch import Tensor, nn

from trainer.inference import tile_memory
from trainer.inference.tiles import TileRule, apply_in_tiles
from trainer.models import BuiltInSpec, Network, export
from trainer.models.spandrel_import import load_spandrel
from trainer.models.spandrel_network import network_class
from trainer.models.weights import load_network, save_weights
from trainer.training.config import TrainConfig
from trainer.training.network import default_patch_size

SETTINGS = ("--patch-size", 32, "--batch-size", 2, "--workers", 0, "--device", "cpu", "--val-samples", 2)
SIZES: dict[str, dict[str, Any]] = {
    "PLKSR": {"dim": 8, "n_blocks": 1, "kernel_size": 5, "upscaling_factor": 2},
    "SPAN": {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2},
    "SwinIR": {
        **{"embed_dim": 16, "num_heads": [2], "depths": [2], "mlp_ratio": 2.0, "window_size": 8, "img_size": 16},
        **{"upsampler": "pixelshuffledirect", "upscale": 2},
    },
    "DAT": {
        **{"embed_dim": 64, "num_heads": [2], "depth": [3], "expansion_factor": 2.0, "split_size": [4, 8]},
        **{"img_size": 16, "upsampler": "pixelshuffledirect", "upscale": 2},
    },
    "NAFNet": {"img_channel": 3, "width": 4, "middle_blk_num": 1, "enc_blk_nums": [1], "dec_blk_nums": [1]},
    "SAFMN": {"dim": 8, "n_blocks": 1, "upscaling_factor": 2},
    "DnCNN": {"in_nc": 1, "out_nc": 1, "nc": 64, "nb": 17, "act_mode": "R"},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the weights file of a small random network of an architecture, as another tool would save it."""
    folder = tmp_path_factory.mktemp("files")

    def file(architecture: str) -> Path:
        path = folder / f"{architecture}.pth"
        if not path.exists():
            with torch.random.fork_rng():
                torch.manual_seed(1)
                torch.save({"params": network_class(architecture)(**SIZES[architecture]).state_dict()}, path)
        return path

    return file


def train(shards: Path, out: Path, *args: object, steps: int = 1) -> Result:
    return trainer("--shards", shards / "scale_2x", "--out", out, *SETTINGS, "--steps", steps, *args)


def trained(shards: Path, out: Path, *args: object, steps: int = 1) -> Result:
    result = train(shards, out, *args, steps=steps)
    assert result.code == 0, result.err
    return result


def error_of(result: Result) -> str:
    """Return the message of a command that must fail with exit code 2 before it writes anything."""
    assert result.code == 2 and result.out == "" and "Traceback" not in result.err, result
    return result.err.splitlines()[-1].removeprefix("Error: ")


def plan_of(run: Path) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads((run / "plan.json").read_text())
    return plan


def params(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, weights_only=True)["params"]
    return state


def weights_in(path: Path) -> dict[str, Tensor]:
    """Return the weights that are trained, as they are in the network of a file."""
    return {name: tensor.detach() for name, tensor in load_network(path).named_parameters() if tensor.requires_grad}


def assert_equal(one: Path, other: Path) -> None:
    first, second = params(one), params(other)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# ---- --init


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["PLKSR", "SPAN", "SwinIR"])
def test_init_takes_the_network_of_the_file(
    architecture: str, files: Callable[[str], Path], shards: Path, tmp_path: Path
) -> None:
    result = trained(shards, tmp_path, "--init", files(architecture))
    run = tmp_path / f"{architecture.lower()}-2x"
    assert f"Network  {architecture} (" in result.err and ", LR in, 2x out" in result.err
    assert yaml.safe_load((run / "config.yaml").read_text())["model"] is None
    assert plan_of(run)["network"]["architecture"] == architecture and plan_of(run)["model"].startswith(architecture)
    ours, theirs = load_network(files(architecture)).spec, load_network(run / "best.pth").spec
    assert ours == theirs
    before = weights_in(files(architecture))
    for name in ("model.pth", "best.pth"):
        opened = load_spandrel().ModelLoader(device="cpu").load_from_file(run / name)
        assert (opened.architecture.id, opened.scale) == (architecture, 2)
        after = weights_in(run / name)
        assert not any(torch.equal(after[key], before[key]) for key in before if key.endswith("weight")), "not trained"
        assert all(torch.allclose(after[key], before[key], atol=2e-3) for key in before), (
            "one step from those in the file"
        )


@pytest.mark.slow
def test_a_resumed_run_needs_no_init_file(files: Callable[[str], Path], shards: Path, tmp_path: Path) -> None:
    init = Path(shutil.copy(files("SPAN"), tmp_path / "init.pth"))
    trained(shards, tmp_path, "--init", init, "--run", "whole", steps=4)
    interrupted = ("--init", init, "--run", "parts", "--save-every", 2)
    trained(shards, tmp_path, *interrupted, steps=4)
    run = tmp_path / "parts"
    # As if it had been killed after the second step: the state of a run of the same settings.
    shutil.rmtree(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.training.loop.TrainingLoop._is_stop_requested", stop_at(2))
        assert train(shards, tmp_path, *interrupted, steps=4).code == 130
    init.unlink()
    result = trainer("--out", tmp_path, "--run", "parts", "--resume")
    assert result.code == 0 and "resumed at step 2" in result.err, result.err
    assert_equal(tmp_path / "whole" / "model.pth", run / "model.pth")


def stop_at(step: int) -> Callable[..., bool]:
    """Return a method of the loop that stops after a step as a signal does."""

    def is_stop_requested(loop: Any, stop: Any) -> bool:
        if loop._progress.step >= step:
            stop.adopt(2)
        return bool(loop._progress.step >= step)

    return is_stop_requested


def test_a_run_of_an_earlier_version_resumes_by_the_name_of_its_model(shards: Path, tmp_path: Path) -> None:
    trained(shards, tmp_path, "--model", "ultra_lite", "--run", "r")
    plan = plan_of(tmp_path / "r")
    (tmp_path / "r" / "plan.json").write_text(json.dumps({"steps": plan["steps"], "scale": plan["scale"]}))
    result = trainer("--out", tmp_path, "--run", "r", "--resume")
    assert result.code == 0 and "has already finished" in result.out, result.err


@pytest.fixture(scope="module")
def finished(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run. Tests may change its plan.json."""
    out = tmp_path_factory.mktemp("finished")
    trained(shards, out, "--model", "ultra_lite", "--run", "r")
    return out / "r"


def refusal_with_plan(run: Path, content: str) -> str:
    """Return the message with which a run of this plan.json is refused."""
    (run / "plan.json").write_text(content)
    return error_of(trainer("--out", run.parent, "--run", run.name, "--resume"))


SPAN_PLAN = (
    '{"model": "x", "network": {"architecture": "SPAN", "scale": 2, '
    '"arguments": {"num_in_ch": 3, "num_out_ch": 3, %s}}}'
)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"network": 3, "model": "x"}',
        '{"network": {}}',
        '{"network": {"architecture": "SPAN", "scale": "four", "arguments": {}}, "model": "x"}',
        SPAN_PLAN % '"feature_channels": -3',
        SPAN_PLAN % '"upscale": 3',
        '{"network": {"architecture": "compact", "scale": 2, "arguments": {"features": 8, "depth": "4"}}, "model": ""}',
        '{"lr": NaN}',
        '{"lr": -0.004}',
        '{"lr": 0}',
        '{"lr": 1e400}',
        '{"lr": "0.004"}',
        '{"lr": null}',
        '{"warmup": -1}',
        '{"warmup": 0.5}',
        '{"warmup": NaN}',
        '{"warmup": true}',
        '{"ema": 1}',
        '{"ema": NaN}',
    ],
)
def test_a_damaged_plan_is_reported(content: str, finished: Path) -> None:
    assert refusal_with_plan(finished, content) == (
        f"{finished / 'plan.json'} is damaged; restore it to resume exactly, or start a new run, e.g. with --init "
        f"{finished / 'model.pth'}"
    )


def test_a_plan_with_an_unsupported_network_is_reported(finished: Path) -> None:
    """By another version of spandrel, for example."""
    message = refusal_with_plan(finished, SPAN_PLAN % '"width": 8')
    assert message.startswith(f"{finished / 'plan.json'}: SPAN has no width; its arguments are ")


def test_model_and_init_agree_or_are_refused(files: Callable[[str], Path], shards: Path, tmp_path: Path) -> None:
    message = error_of(train(shards, tmp_path, "--init", files("PLKSR"), "--model", "lite"))
    assert message.startswith(f"weights {files('PLKSR')} are for PLKSR (")
    assert "but this run trains lite at 2x; pass other weights, or a --model" in message
    weights = tmp_path / "lite.pth"
    save_weights(weights, BuiltInSpec("compact", 2, 64, 16).build().state_dict(), None)
    trained(shards, tmp_path, "--init", weights, "--run", "r")
    assert yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())["model"] == "lite"


@pytest.mark.parametrize(
    ("architecture", "folder", "args", "expected"),
    [
        ("PLKSR", "scale_3x", (), "upscales 2x, but the shards in {shards} are 3x; pass --shards of 2x, or other"),
        ("PLKSR", "scale_2x", ("--input", "up"), "upscales 2x; omit --input up, or pass other weights"),
        ("NAFNet", "scale_2x", ("--input", "up"), "NAFNet has no training support, only ATD, DAT, "),
        ("DAT", "scale_2x", ("--batch-size", 1), "needs 2 patches in each or more, but a process has 1; pass a larger"),
        ("DnCNN", "scale_2x", (), "maps images of 1 channel to 1; pass a network for RGB images"),
        (
            "SwinIR",
            "scale_2x",
            ("--patch-size", 40),
            "--patch-size 40: SwinIR (img_size 16, embed_dim 16, depths (2,), num_heads (2,), window_size 8, mlp_ratio "
            "2.0, upsampler pixelshuffledirect) needs input patches that are a multiple of 8 px, i.e. HR patches that "
            "are a multiple of 16 px; pass --patch-size 32 or 48",
        ),
    ],
)
def test_networks_that_cannot_be_trained_are_refused(
    architecture: str,
    folder: str,
    args: tuple[object, ...],
    expected: str,
    files: Callable[[str], Path],
    shards: Path,
    tmp_path: Path,
) -> None:
    init = files(architecture)
    result = trainer("--shards", shards / folder, "--out", tmp_path, *SETTINGS, "--steps", 1, "--init", init, *args)
    message = error_of(result)
    assert expected.format(shards=shards / folder) in message
    assert not list(tmp_path.iterdir())


def test_patches_of_the_shards_that_no_window_fits_are_explained(
    files: Callable[[str], Path], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srshards.shards.folder.Shards.hr_size", 12)
    message = error_of(train(shards, tmp_path, "--init", files("SwinIR"), "--patch-size", 12))
    assert message.endswith("a multiple of 16 px; pass shards of a larger --size")


@pytest.mark.parametrize(
    ("multiple_px", "scale", "hr_size", "expected"),
    [
        (1, 4, 512, 192),
        (8, 4, 512, 192),
        (32, 4, 512, 256),
        (32, 4, 200, 128),
        (1, 5, 512, 195),
        (1, 4, 64, 192),  # refused by the loader, with the size of the images
    ],
)
def test_the_default_patch_size_suits_the_network(multiple_px: int, scale: int, hr_size: int, expected: int) -> None:
    spec, folder = SimpleNamespace(multiple_px=multiple_px), SimpleNamespace(scale=scale, hr_size=hr_size)
    config = TrainConfig(shards=Path("shards"))
    assert default_patch_size(cast(Any, spec), config, cast(Any, folder)) == expected


def test_a_missing_extra_is_reported(
    files: Callable[[str], Path], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = files("PLKSR")
    for name in [name for name in sys.modules if name.partition(".")[0] == "spandrel"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "spandrel", None)
    for args in (("--init", init), ("--model", "span")):
        message = error_of(train(shards, tmp_path, *args))
        assert "spandrel" in message and "sr-shards[arches]" in message
    for command in (("evaluate", "--hr", tmp_path), ("upscale", tmp_path, "-o", tmp_path / "o"), ("export",)):
        assert "sr-shards[arches]" in error_of(trainer(*command, "--weights", init))


@pytest.mark.slow
def test_two_ranks_train_the_network_of_a_file(files: Callable[[str], Path], shards: Path, tmp_path: Path) -> None:
    """Only rank 0 reads the file. Batches of one patch per rank are those of two patches in one process."""
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *SETTINGS, "--steps", 3, "--amp", "off")
    with ranks_of(2, tmp_path, *args, "--batch-size", 1, "--init", files("SPAN")) as ranks:
        codes, output = wait(ranks)
    assert codes == {0}, output
    trained(shards, tmp_path, "--init", files("SPAN"), "--amp", "off", "--run", "one", steps=3)
    one, two = params(tmp_path / "one" / "model.pth"), params(tmp_path / "r" / "model.pth")
    assert all(torch.allclose(tensor, two[name], rtol=0, atol=1e-5) for name, tensor in one.items())


# ---- evaluate and upscale


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "p.png"
    Image.fromarray(make_photo(100, 131, 3)).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), np.int16)


@pytest.mark.parametrize("architecture", ["SPAN", "SwinIR", "SAFMN"])
def test_tiles_do_not_change_the_result(
    architecture: str, files: Callable[[str], Path], photo: Path, tmp_path: Path
) -> None:
    smallest = TileRule.of(load_network(files(architecture)).spec).minimum_px
    for name, tile in (("whole", 0), ("tiles", smallest + 4)):  # not a multiple of the windows
        result = trainer(
            *("upscale", photo, "--weights", files(architecture), "-o", tmp_path / f"{name}.png", "--tile", tile)
        )
        assert result.code == 0, result.err
    assert "100%" in result.err or "131 x 100 to 262 x 200 px" in result.out
    difference = np.abs(pixels(tmp_path / "whole.png") - pixels(tmp_path / "tiles.png"))
    assert difference.max() <= 1 and pixels(tmp_path / "whole.png").shape == (200, 262, 3)


def test_a_tile_without_whole_windows_is_refused(files: Callable[[str], Path], photo: Path, tmp_path: Path) -> None:
    message = error_of(trainer("upscale", photo, "--weights", files("SwinIR"), "-o", tmp_path / "x.png", "--tile", 70))
    assert message == (
        "--tile 70: expected 72 px or more, because this network needs a margin of 32 px on every side, and works in "
        "windows of 8 px; pass --tile auto, or --tile 96 or more, which is faster"
    )


@pytest.mark.parametrize("size", [(1, 1), (3, 7)])
@pytest.mark.parametrize("architecture", ["SwinIR", "SAFMN", "NAFNet"])
def test_photos_smaller_than_a_window(
    architecture: str, size: tuple[int, int], files: Callable[[str], Path], tmp_path: Path
) -> None:
    Image.new("RGB", size, (90, 120, 30)).save(tmp_path / "p.png")
    args = ("--scale", 2) if architecture == "NAFNet" else ()
    result = trainer("upscale", tmp_path / "p.png", "--weights", files(architecture), "-o", tmp_path / "o.png", *args)
    assert result.code == 0, result.err
    assert Image.open(tmp_path / "o.png").size == (2 * size[0], 2 * size[1])


def test_networks_that_restore_take_upsampled_photos(files: Callable[[str], Path], photo: Path, tmp_path: Path) -> None:
    weights = ("--weights", files("NAFNet"))
    assert "takes upsampled photos of any scale; pass the scale, e.g. --scale 4" in error_of(
        trainer("upscale", photo, *weights, "-o", tmp_path / "o.png")
    )
    assert trainer("upscale", photo, *weights, "-o", tmp_path / "o.png", "--scale", 3).code == 0
    assert Image.open(tmp_path / "o.png").size == (393, 300)
    assert "pass the scale" in error_of(trainer("evaluate", *weights, "--hr", photo.parent))
    result = trainer("evaluate", *weights, "--hr", photo.parent, "--scale", 2, "--json")
    assert len(json.loads(result.out)["images"]) == 1


def test_evaluate_measures_what_spandrel_computes(files: Callable[[str], Path], photo: Path) -> None:
    """With the whole image and with tiles."""
    args = ("evaluate", "--weights", files("SwinIR"), "--hr", photo.parent, "--json")
    whole, tiles = (json.loads(trainer(*args, *more).out)["mean"]["network"] for more in ((), ("--tile", 104)))
    assert whole == pytest.approx(tiles, abs=1e-3)


@pytest.mark.parametrize("command", ["evaluate", "upscale", "export"])
def test_networks_for_other_images_are_refused(
    command: str, files: Callable[[str], Path], photo: Path, tmp_path: Path
) -> None:
    args = {"evaluate": ("--hr", photo.parent), "upscale": (photo, "-o", tmp_path / "o.png"), "export": ()}[command]
    message = error_of(trainer(command, "--weights", files("DnCNN"), *args))
    assert "maps images of 1 channel to 1; pass a network for RGB images" in message


# ---- tiles and probes of networks with windows


class Windows(Network, architecture="windows for tests"):
    """Replaces each window of 12 x 12 px by its mean, and records the sizes it gets."""

    scales = (1,)

    def __init__(self, spec: BuiltInSpec) -> None:
        super().__init__(spec)
        self.sizes: list[tuple[int, ...]] = []
        self.mix = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(tuple(images.shape[2:]))
        means = nn.functional.avg_pool2d(images, 12, ceil_mode=True)
        mixed = self.mix(nn.functional.interpolate(means, scale_factor=12).permute(0, 2, 3, 1))
        return mixed.permute(0, 3, 1, 2)[:, :, : images.shape[2], : images.shape[3]]

    @staticmethod
    def margin_px(spec: Any) -> int:
        return 12

    @staticmethod
    def multiple_px(spec: Any) -> int:
        return 12


@pytest.fixture
def windows() -> Iterator[Windows]:
    network = Windows(BuiltInSpec("windows for tests", 1, 1, 1))
    yield network.eval()


def test_tiles_have_the_windows_of_the_complete_image(windows: Windows) -> None:
    images = torch.rand(1, 3, 100, 170, generator=torch.Generator().manual_seed(0))
    whole = apply_in_tiles(windows, images, None, TileRule.of(windows.spec))
    assert torch.allclose(apply_in_tiles(windows, images, 50, TileRule.of(windows.spec)), whole, atol=1e-6)
    assert not torch.allclose(apply_in_tiles(windows, images, 60, TileRule(16)), whole, atol=1e-3), "off the windows"


def test_memory_and_progress_are_probed_with_whole_windows(windows: Windows) -> None:
    per_pixel = tile_memory.tensor_bytes_per_pixel(windows)
    assert set(windows.sizes) == {(24, 24)}, "a multiple of 8 and of the window"
    assert 4 * 3 * 2 <= per_pixel <= 4 * 3 * 4
    shares: list[float] = []
    apply_in_tiles(windows, torch.rand(1, 3, 60, 60), None, TileRule.of(windows.spec), on_progress=shares.append)
    assert shares == [1, 1], "after the linear layer and after the tile"


@pytest.mark.slow
def test_networks_with_a_minimum_are_probed_at_it(files: Callable[[str], Path]) -> None:
    """At 8 px, SwinIR would be padded to 16 px, and seem to need four times the memory."""
    network = load_network(files("SwinIR"))
    with tile_memory._LiveBytes() as counter, torch.inference_mode():
        network(torch.zeros(1, 3, 96, 96))
    assert tile_memory.tensor_bytes_per_pixel(network) == pytest.approx(counter.peak / 96**2, rel=0.5)


# ---- export


def test_an_architecture_that_cannot_be_exported_is_refused(
    files: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(network: Network) -> Any:
        raise RuntimeError("many\nlines") from ValueError("No ONNX function found for adaptive_max_pool2d\nand more")

    monkeypatch.setattr(export, "_onnx_model", fail)
    message = error_of(trainer("export", "--weights", files("SAFMN"), "-o", tmp_path / "x.onnx"))
    expected = (
        "export SAFMN to ONNX with dynamic sizes (No ONNX function found for adaptive_max_pool2d); use the weights"
    )
    assert message.startswith(str(files("SAFMN"))) and expected in message
    assert not list(tmp_path.iterdir())
