"""`--sharpen-hr`: HR sharpened for the losses, as by the recipes' implementation with OpenCV."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import SMALL, Result, events, generate, make_photo, trainer

import srshards
from shardgen.degradation.sharpen import usm
from trainer.models import network_spec
from trainer.training.sharpen import MIN_PX, Sharpen

PATCH_PX = 32
OPTIONS = (*SMALL, "--patch-size", PATCH_PX, "--steps", 1)


def train(shards: Path, out: Path, *args: object) -> Result:
    return trainer("--shards", shards, "--out", out, *OPTIONS, *args)


def refused(*args: object) -> str:
    result = trainer(*args)
    assert result.code == 2, result
    return " ".join(result.err.split())


def reference(images: np.ndarray) -> np.ndarray:
    """Sharpen N x H x W x 3 uint8 with OpenCV; returns float32 in [0, 1]."""
    return np.stack([usm(one.astype(np.float32), 0.5, 50, 10.0) for one in images]) / 255


def as_tensor(images: np.ndarray) -> torch.Tensor:
    """Return N x 3 x H x W float32 in [0, 1], channels_last."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("size", [MIN_PX, 40, 128])
def test_sharpened_images_are_those_of_opencv(size: int) -> None:
    images = np.stack([make_photo(size, size, seed) for seed in range(3)])
    images[2, :, size // 2 :] = 255 * (images[2, :, size // 2 :] > 128)  # hard edges that overshoot
    found = Sharpen(size)(as_tensor(images))
    expected = reference(images)
    assert np.abs(found.permute(0, 2, 3, 1).numpy() - expected).max() < 1e-3
    assert np.abs(expected - images / 255).max() > 0.05, "the images are sharpened"
    assert found.dtype is torch.float32 and found.min() >= 0 and found.max() <= 1
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_losses_compare_with_sharpened_hr_and_validations_with_hr(shards: Path, tmp_path: Path) -> None:
    folder = shards / "scale_2x"
    for name, option in {"sharp": "--sharpen-hr", "plain": "--no-sharpen-hr"}.items():
        result = train(folder, tmp_path, "--run", name, option, "--amp", "off", "--lr", 1e-9, "--ema", 0)
        assert result.code == 0, result.err
        assert yaml.safe_load((tmp_path / name / "config.yaml").read_text())["sharpen-hr"] is (name == "sharp")
    with srshards.PatchLoader(srshards.open(folder), PATCH_PX, 4, workers=0) as loader:
        batch = next(iter(loader.steps(0, 1)))
    hr = batch.hr.numpy()
    with torch.no_grad():
        output = network_spec("ultra_lite", 2).build(0)(as_tensor(batch.input.numpy())).permute(0, 2, 3, 1).numpy()
    losses = {name: events(tmp_path / name, "train")[0]["loss"] for name in ("sharp", "plain")}
    assert losses["plain"] == pytest.approx(np.abs(output - hr / 255).mean(), rel=1e-4)
    assert losses["sharp"] == pytest.approx(np.abs(output - reference(hr)).mean(), rel=1e-4)
    assert losses["sharp"] > 1.01 * losses["plain"]
    psnr = [events(tmp_path / name, "val")[0]["psnr_y"] for name in ("sharp", "plain")]
    assert psnr[0] == pytest.approx(psnr[1], abs=1e-4)


def test_patches_too_small_to_reflect_their_borders_are_refused(shards: Path, tmp_path: Path) -> None:
    args = ("--shards", shards / "scale_2x", "--out", tmp_path / "runs", *OPTIONS, "--sharpen-hr", "--patch-size", 24)
    expected = (
        "--sharpen-hr needs patches of 26 px or more, not 24, to reflect their borders; pass a larger --patch-size or "
        "--no-sharpen-hr"
    )
    assert expected in refused(*args)
    assert not (tmp_path / "runs").exists()


def test_hr_is_not_sharpened_twice(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2, "--sharpen-hr")
    folder = tmp_path / "scale_2x"
    args = ("--shards", folder, "--out", tmp_path / "runs", *OPTIONS, "--sharpen-hr")
    expected = (
        f"HR in {folder} is sharpened already, by `generate --sharpen-hr`; pass --no-sharpen-hr, or shards generated "
        "without"
    )
    assert expected in refused(*args)
    assert trainer(*args, "--no-sharpen-hr").code == 0


def test_a_resumed_run_keeps_the_setting(shards: Path, tmp_path: Path) -> None:
    for name, option, other, message in (
        ("sharp", "--sharpen-hr", "--no-sharpen-hr", "was started with --sharpen-hr, not without it; omit"),
        ("plain", "--no-sharpen-hr", "--sharpen-hr", "was started without --sharpen-hr, not with it; omit"),
    ):
        assert train(shards / "scale_2x", tmp_path, "--run", name, option).code == 0
        assert message in refused("--out", tmp_path, "--run", name, "--resume", other)
        assert trainer("--out", tmp_path, "--run", name, "--resume", option).code == 0
