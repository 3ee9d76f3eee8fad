"""`--preset`: settings of published trainings, their place among other settings, and what they expect of a run."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import SMALL, Result, events, generate, make_photos, trainer, weights
from test_trainer_cli import drop_validation
from test_trainer_vgg19 import CONFIGURATION, plain, state_of

from trainer.commands import settings
from trainer.presets import PRESETS, preset_text

# In place of a preset's batches and of its network's defaults.
TINY = (*SMALL, "--patch-size", 32, "--batch-size", 2, "--steps", 1)
LEFT_TO_USERS = {"shards", "model", "init", "epochs", "steps", "ranks", "device", "amp", "step", "workers", "resident"}


@pytest.fixture(scope="module")
def by_recipe(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards at 2x as Real-ESRGAN's presets expect them, beside some at 3x. Read-only."""
    output = tmp_path_factory.mktemp("by_recipe")
    generate(photos, output, "-s", 2, 3, "--degradation", "realesrgan", "--sample", 0.2)
    return output / "scale_2x"


@pytest.fixture(scope="module")
def start(by_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a first stage."""
    out = tmp_path_factory.mktemp("start")
    assert train(by_recipe, out, "--preset", "realesrnet", "--run", "first").code == 0
    return out / "first" / "model.pth"


def train(shards: Path, out: Path, *args: object) -> Result:
    return trainer("--shards", shards, "--out", out, *TINY, *args)


def refused(*args: object) -> str:
    result = trainer(*args)
    assert result.code == 2 and "Traceback" not in result.err, result
    return " ".join(result.err.split())


def config_of(run: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((run / "config.yaml").read_text()))


# ---- the files


def test_presets_are_listed_with_a_line_each_and_printed() -> None:
    listed = trainer("preset")
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == list(PRESETS)
    assert "realesrgan        stage 2 of Real-ESRGAN: L1, perceptual and adversarial, from the" in listed.out
    for name in PRESETS:
        shown = trainer("preset", "show", name)
        assert shown.code == 0 and shown.out == preset_text(name)


@pytest.mark.parametrize("name", PRESETS)
def test_every_value_has_a_source_and_others_are_left_to_users(name: str) -> None:
    text = preset_text(name)
    assert re.search(r"^# Source of all values.*options/.*\.yml", text, re.MULTILINE) and "commit" in text
    for line in text.splitlines():
        assert not line or line.startswith("#") or line == "loss:" or re.search(r"\S +# \w", line), line
    values = yaml.safe_load(text)
    assert not LEFT_TO_USERS & set(values)
    described = set(re.findall(r"^#   ([a-z-]+) +\S", text, re.MULTILINE))
    assert {"shards", "init", "steps", "ranks", "amp"} <= described, "with the published value"


def test_unknown_presets_get_the_nearest_name(shards: Path, tmp_path: Path) -> None:
    near = "'realesrnt' is not one of 'realesrnet', 'realesrgan', 'compact-finetune'. Did you mean 'realesrnet'?"
    assert near in refused("preset", "show", "realesrnt")
    assert near in refused("--shards", shards / "scale_2x", "--out", tmp_path / "runs", *TINY, "--preset", "realesrnt")
    (tmp_path / "c.yaml").write_text("preset: realesrnt\n")
    assert f"{tmp_path / 'c.yaml'}: preset: {near}" in refused(
        "--shards", shards / "scale_2x", "--out", tmp_path / "runs", *TINY, "--config", tmp_path / "c.yaml"
    )
    assert not (tmp_path / "runs").exists()


# ---- precedence


def test_a_preset_gives_the_settings_that_nothing_else_gives(by_recipe: Path, tmp_path: Path) -> None:
    result = train(by_recipe, tmp_path, "--preset", "realesrnet", "--run", "preset")
    assert result.code == 0, result.err
    found = config_of(tmp_path / "preset")
    expected = {"lr": 2e-4, "warmup": 0, "clip": 0.0, "ema": 0.999, "loss": ["l1"], "sharpen-hr": True}
    assert found.items() >= {"preset": "realesrnet", "schedule": "constant", **expected}.items()
    assert (found["batch-size"], found["patch-size"]) == (2, 32), "the command line takes precedence"
    assert events(tmp_path / "preset", "train")[0]["lr"] == 2e-4

    (tmp_path / "c.yaml").write_text("preset: realesrnet\nlr: 3e-4\nema: 0.99\nwarmup: null\nsharpen-hr: false\n")
    given = ("--config", tmp_path / "c.yaml", "--ema", 0, "--run", "file")
    assert train(by_recipe, tmp_path, *given).code == 0
    found = config_of(tmp_path / "file")
    assert found.items() >= {"lr": 3e-4, "warmup": None, "clip": 0.0, "ema": 0.0, "sharpen-hr": False}.items()
    assert train(by_recipe, tmp_path, "--preset", "realesrnet", "--no-sharpen-hr", "--run", "line").code == 0
    assert config_of(tmp_path / "line")["sharpen-hr"] is False


def test_the_printed_file_is_equal_to_the_preset(by_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(trainer("preset", "show", "realesrnet").out)
    for name, given in {"file": ("--config", tmp_path / "mine.yaml"), "preset": ("--preset", "realesrnet")}.items():
        assert train(by_recipe, tmp_path, "--run", name, *given).code == 0
    assert weights(tmp_path / "file") == weights(tmp_path / "preset")
    assert config_of(tmp_path / "file") == config_of(tmp_path / "preset") | {"run": "file", "preset": None}


def test_a_resumed_run_keeps_its_settings(by_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, given in {"preset": ("--preset", "realesrnet"), "none": ()}.items():
        assert train(by_recipe, tmp_path, "--run", name, *given).code == 0
    before = config_of(tmp_path / "preset")
    config = tmp_path / "preset" / "config.yaml"
    monkeypatch.setattr(settings, "preset_text", lambda name: "lr: 0.5\nverify: true\n")  # of a later version
    for given in ((), ("--preset", "realesrnet")):
        drop_validation(tmp_path / "preset")
        config.write_text(config.read_text().replace("verify: false\n", ""))  # an option newer than the run
        resumed = trainer("--out", tmp_path, "--run", "preset", "--resume", *given)
        assert resumed.code == 0 and "resumed at step 1" in resumed.err
        assert config_of(tmp_path / "preset") == before
    resume = ("--out", tmp_path, "--resume", "--preset", "realesrgan", "--run")
    assert "preset was started with --preset realesrnet, not --preset realesrgan; omit --preset" in refused(
        *resume, "preset"
    )
    assert "none was started without --preset, not --preset realesrgan; omit --preset to resume" in refused(
        *resume, "none"
    )


def test_another_schedule_replaces_that_of_the_preset_with_its_milestones(
    by_recipe: Path, start: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text("loss: l1\ngan: null\n")
    given = ("--preset", "compact-finetune", "--init", start, "--config", tmp_path / "c.yaml", "--steps", 20)
    for schedule, milestones in {"cosine": None, "multistep": [0.2, 0.4, 0.6, 0.8, 0.9]}.items():
        result = train(by_recipe, tmp_path, *given, "--schedule", schedule, "--run", schedule)
        assert result.code == 0, result.err
        found = config_of(tmp_path / schedule)
        assert found["milestones"] == milestones
        assert found["discriminator"] is None, "without --gan, the preset's is omitted"


# ---- what presets expect


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("realesrgan", "the weights of a training with --preset realesrnet"),
        ("compact-finetune", "the weights to fine-tune"),
    ],
)
def test_presets_of_later_stages_need_weights(name: str, weights: str, by_recipe: Path, tmp_path: Path) -> None:
    args = ("--shards", by_recipe, "--out", tmp_path / "runs", *TINY, "--preset", name)
    expected = f"--preset {name} starts from {weights}; pass their file as --init, e.g. --init runs/lite-4x/model.pth"
    assert expected in refused(*args)
    assert not (tmp_path / "runs").exists()


def test_settings_that_contradict_the_preset_are_refused_with_its_name(by_recipe: Path, tmp_path: Path) -> None:
    args = ("--shards", by_recipe, "--out", tmp_path / "runs", *TINY, "--preset", "realesrgan", "--input", "up")
    assert "--gan trains networks that upscale; omit --input up" in refused(*args)
    assert refused(*args).endswith("(with the settings of --preset realesrgan)")


def notes(result: Result) -> list[str]:
    assert result.code == 0, result.err
    return [line for line in result.err.splitlines() if "--preset" in line]


def test_other_shards_than_a_preset_expects_are_noted(shards: Path, by_recipe: Path, tmp_path: Path) -> None:
    given = ("--preset", "realesrnet", "--no-sharpen-hr")
    assert notes(train(by_recipe, tmp_path, *given)) == []
    advice = "to make such shards, run `python -m shardgen generate -i PHOTOS -o SHARDS -s {} --degradation realesrgan`"
    expected = "Note     --preset realesrnet expects shards of 2x or 4x by realesrgan, but these are {}; "
    for folder, found, scale in (
        (shards / "scale_2x", "2x by cubic", 2),
        (shards / "scale_3x", "3x by cubic", 4),
        (by_recipe.with_name("scale_3x"), "3x by realesrgan", 4),
    ):
        result = train(folder, tmp_path, *given, "--patch-size", 36)
        assert notes(result) == [expected.format(found) + advice.format(scale)]


# ---- trainings


@pytest.fixture(scope="module")
def large_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards at 2x that are large enough for MS-SSIM."""
    folder = tmp_path_factory.mktemp("large")
    make_photos(folder / "photos", 4, (180, 180))
    generate(folder / "photos", folder, "-s", 2, "--size", 176)
    return folder / "scale_2x"


@pytest.fixture(scope="module")
def vgg19(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of VGG19."""
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(state_of(plain(CONFIGURATION)), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "patch_px", "losses"),
    [("realesrgan", 32, ["l1", "perceptual"]), ("compact-finetune", 176, ["msssim", "perceptual", "luma", "colour"])],
)
def test_second_stages_train_from_the_first(
    name: str, patch_px: int, losses: list[str], vgg19: Path, large_shards: Path, start: Path, tmp_path: Path
) -> None:
    given = ("--preset", name, "--init", start, "--perceptual-weights", vgg19, "--patch-size", patch_px, "--run", "run")
    result = trainer("--shards", large_shards, "--out", tmp_path, *TINY, *given, "--batch-size", 1, "--val-samples", 1)
    assert result.code == 0 and f"\nInit     network from {start}\n" in result.err, result.err
    found = config_of(tmp_path / "run")
    assert found["gan"] == "vanilla:0.1" and found["init"] == str(start) and found["lr"] == 1e-4
    assert losses == [term.partition(":")[0] for term in found["loss"]]
    measured = events(tmp_path / "run", "train")[0]["losses"]
    assert set(losses) <= set(measured)
