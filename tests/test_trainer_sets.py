"""Validation on named sets: `--val`, `--best` and `--metrics`, from parsing to the journal and `best.pth`."""

import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import SMALL, Result, events, generate, make_photo, make_photos, overwrite, trainer
from pair_folders import images, named
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from srshards.errors import UsageError
from srshards.shards.opening import open_shards
from tests.drill.s3_server import Bucket
from trainer.distributed.group import RankGroup
from trainer.distributed.rank import RankInfo
from trainer.evaluation import perceptual, sets
from trainer.evaluation.best import BestBy, parse_best
from trainer.evaluation.evaluate import evaluate_pairs
from trainer.evaluation.metrics import Quality, mean_quality
from trainer.evaluation.pairs import Pair, photo_pairs
from trainer.evaluation.set_names import NamedSet, parse_set
from trainer.evaluation.sets import EvaluationSet, PhotoSet, ShardSet, open_set
from trainer.metrics_table import METRICS, OWN
from trainer.models import network_spec
from trainer.runs.checkpoint import TrainingProgress, load_state, save_state
from trainer.training import run as training_run
from trainer.training import validation as training_validation
from trainer.training.stopping import StopRequest
from trainer.training.validation import Validation

NETWORK = ("psnr_rgb", "psnr_y", "ssim_rgb", "ssim_y")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of photos, `five` and `two`, and shards of others: `scale_2x` (3 in val), `none/scale_2x` (0)."""
    folder = tmp_path_factory.mktemp("sets")
    photos = make_photos(folder / "photos", 8)
    make_photos(folder / "five", 5, size=(70, 85))
    make_photos(folder / "two", 2, size=(40, 60))
    generate(photos, folder, "-s", 2, 3, "--val-fraction", 0.25)
    generate(photos, folder / "none", "-s", 2, "--val-fraction", 0)
    assert len(open_shards(folder / "scale_2x").val) == 3
    return folder


def arguments(folder: Path, out: Path, *more: object, shards: str = "scale_2x") -> tuple[object, ...]:
    return ("--shards", folder / shards, "--out", out, *SMALL, "--steps", 4, "--val-every", 2, "--amp", "off", *more)


def both(folder: Path) -> tuple[object, ...]:
    return ("--val", f"five={folder / 'five'}", "--val", folder / "two")


def train(*args: object) -> Result:
    result = trainer(*args)
    assert result.code == 0, result.err + result.out
    return result


def only_run(out: Path) -> Path:
    (run,) = (path for path in out.iterdir() if path.is_dir())
    return run


# ---- names


def test_a_set_is_named_explicitly_or_after_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert parse_set("Set5=photos/a=b") == NamedSet("Set5", Path("photos/a=b"))
    assert parse_set("photos/Set5/") == NamedSet("Set5", Path("photos/Set5"))
    assert parse_set("./a=b/c") == NamedSet("c", Path("a=b/c"))
    assert parse_set(".") == NamedSet("here", Path("."))
    assert parse_set("人像_1.2-x=p") == NamedSet("人像_1.2-x", Path("p"))
    assert str(parse_set("Set5=photos/Set5")) == "Set5=photos/Set5"
    assert str(parse_set("far=s3://bucket/scale_2x").address) == "s3://bucket/scale_2x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b=photos", "the name 'a b' cannot name a set: expected up to 64 letters, digits, '.', '_' or '-'; pass "),
        ("a@b=photos", "pass e.g. a_b=photos"),
        (".a=photos", "pass e.g. a=photos"),
        ("=photos", "pass e.g. set=photos"),
        ("my photos", "the folder's name 'my photos' cannot name a set"),
        (f"{'x' * 65}=photos", "cannot name a set: expected up to 64"),
        ("a=", "'a=': the path is empty"),
        ("a=ftpx://b/c", "unknown store ftpx://"),
    ],
)
def test_unsuitable_names_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_set(text)
    assert message in str(error.value)


def test_the_best_value_is_the_highest_or_the_lowest() -> None:
    assert parse_best("ssim_y") == BestBy("ssim_y") and parse_best("lpips@Set5") == BestBy("lpips", "Set5")
    assert [str(parse_best(text)) for text in ("ssim_y", "lpips@Set5")] == ["ssim_y", "lpips@Set5"]
    for metric, better, worse in (("psnr_y", 31, 30), ("topiq", 0.6, 0.5), ("dists", 0.1, 0.2), ("niqe", 3, 4)):
        by = BestBy(metric)
        assert by.is_better(better, None) and by.is_better(better, worse)
        assert not by.is_better(worse, better) and not by.is_better(better, better)
        assert not by.is_better(math.nan, None) and not by.is_better(math.nan, worse)
    assert BestBy("psnr_y", "val").described(31.042) == "31.04 dB PSNR-Y"
    assert BestBy("psnr_y", "val").shortened(31.042) == "31.04 dB"
    assert BestBy("psnr_y", "Set5").shortened(31.042) == "31.04 dB PSNR-Y on Set5"
    assert BestBy("lpips", "Set5").described(0.12345) == "0.1235 LPIPS on Set5"


# ---- sets


def assert_equal(found: Sequence[Pair], expected: Sequence[Pair]) -> None:
    assert [one.name for one in found] == [one.name for one in expected]
    for one, other in zip(found, expected, strict=True):
        for name in ("hr", "lr", "input"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("upsampled", [False, True])
def test_a_folder_of_photos_is_a_set(folder: Path, upsampled: bool) -> None:
    one = open_set(NamedSet("five", folder / "five"), 2, upsampled)
    expected = list(photo_pairs(folder / "five", 2, upsampled))
    assert (one.num_images, one.num_found, one.source) == (5, 5, str(folder / "five"))
    assert_equal(list(one.pairs()), expected)
    some = open_set(NamedSet("five", folder / "five"), 2, upsampled, limit=2)
    assert_equal(list(some.pairs()), [expected[0], expected[2]])
    assert_equal([*some.pairs(1, 2), *some.pairs(0, 2)], [expected[2], expected[0]])


def test_photos_beside_an_archive_are_a_set(folder: Path, tmp_path: Path) -> None:
    shutil.copy(next((folder / "two").rglob("*.jpg")), tmp_path)
    (tmp_path / "photos.tar").touch()
    assert open_set(NamedSet("x", tmp_path), 2, False).num_images == 1


def test_a_shard_folder_is_a_set(folder: Path) -> None:
    """Its validation split or, if that is empty, all of it."""
    one = open_set(NamedSet("a", folder / "scale_2x"), 2, False)
    assert isinstance(one, ShardSet) and (one.split, one.num_images) == ("val", 3)
    assert_equal(list(one.pairs()), list(ShardSet("b", open_shards(folder / "scale_2x"), "val", False).pairs()))
    one = open_set(NamedSet("a", folder / "none/scale_2x"), 2, True, limit=3)
    assert isinstance(one, ShardSet) and (one.split, one.num_images, one.num_found) == ("train", 3, 8)
    assert len(list(one.pairs())) == 3


def test_photos_are_kept_in_memory_as_far_as_they_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(photo_pairs(folder / "five", 2, False))
    size = expected[0].hr.nbytes + expected[0].lr.nbytes
    one = PhotoSet("five", folder / "five", 2, False)
    assert one.load(3 * size + 1) == 3 * size
    computed: list[str] = []
    real = sets.photo_pair
    monkeypatch.setattr(sets, "photo_pair", lambda path, *args: computed.append(path.name) or real(path, *args))
    for _ in range(2):
        assert_equal(list(one.pairs()), expected)
    assert computed == 2 * [Path(pair.name).name for pair in expected[3:]]


def test_a_fingerprint_is_that_of_the_images(folder: Path, tmp_path: Path) -> None:
    def fingerprint(path: Path) -> str:
        return open_set(NamedSet("x", path), 2, False).fingerprint()

    moved = Path(shutil.copytree(folder / "two", tmp_path / "moved"))
    assert fingerprint(moved) == fingerprint(folder / "two") != fingerprint(folder / "five")
    Image.new("RGB", (50, 50)).save(moved / "new.png")
    assert fingerprint(moved) != fingerprint(folder / "two")
    assert fingerprint(folder / "scale_2x") != fingerprint(folder / "none/scale_2x")


# ---- validation


def quality(values: dict[str, float], bound: float = 1e-9) -> Quality:
    return Quality(**{name: pytest.approx(values[name], abs=bound) for name in OWN})


def opened(folder: Path, upsampled: bool = False) -> list[EvaluationSet]:
    main = ShardSet("val", open_shards(folder / "scale_2x"), "val", upsampled)
    return [main, *(open_set(NamedSet(name, folder / name), 2, upsampled) for name in ("five", "two"))]


@pytest.mark.parametrize("upsampled", [False, True])
def test_each_set_has_its_own_means(folder: Path, upsampled: bool) -> None:
    network = network_spec("ultra_lite", 1 if upsampled else 2).build(seed=3).eval()
    validation = Validation(opened(folder, upsampled))
    validation.load(10**9)
    for _ in range(2):  # the second time with the remembered metrics of bicubic
        result = validation.run(network, StopRequest())
        assert result is not None and list(result.sets) == ["val", "five", "two"]
        for one in opened(folder, upsampled):
            expected = list(evaluate_pairs(network, one.pairs()))
            assert quality(result.sets[one.name].network, 1e-4) == mean_quality([image.network for image in expected])
            assert quality(result.sets[one.name].bicubic) == mean_quality([image.bicubic for image in expected])


class _Rank(RankGroup):
    """A rank whose sums are only collected, to be added up by the test."""

    def __init__(self, rank: int, ranks: int) -> None:
        super().__init__(RankInfo(rank, ranks, 0, 1))
        self.sums: list[float] = []

    def sum(self, values: Sequence[float]) -> list[float]:
        self.sums = list(values)
        return self.sums


def test_ranks_share_the_images_of_all_sets_equally(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three, five and two images on four ranks: three images on two of them, two on the others."""
    network = network_spec("ultra_lite", 2).build(seed=3).eval()
    monkeypatch.setattr(training_validation, "grid", lambda *args: None)  # the ranks do not gather their previews
    ranks = [_Rank(rank, 4) for rank in range(4)]
    for group in ranks:
        assert Validation(opened(folder), group).run(network, StopRequest()) is not None
    alone = _Rank(0, 1)
    Validation(opened(folder), alone).run(network, StopRequest())
    assert np.sum([group.sums for group in ranks], 0) == pytest.approx(alone.sums, rel=1e-5)
    num_images = [sum(group.sums[::16]) for group in ranks]  # of each set, the count of PSNR comes first
    assert sorted(num_images) == [2, 2, 3, 3]


# ---- training


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run on both folders, in which best.pth is chosen by SSIM-Y of one of them."""
    out = tmp_path_factory.mktemp("runs")
    result = train(*arguments(folder, out, *both(folder), "--best", "ssim_y@five"))
    return only_run(out), result


def test_each_set_is_in_the_journal_in_tensorboard_and_in_the_output(finished: tuple[Path, Result]) -> None:
    run, result = finished
    lines = events(run, "val")
    assert [line["step"] for line in lines] == [2, 4]
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    for line in lines:
        assert "set" not in line and list(line["sets"]) == ["five", "two"]
        for name, values in {"val": line, **line["sets"]}.items():
            assert {"psnr_y", "ssim_rgb", "bicubic_psnr_y"} <= values.keys()
            tag = "val" if name == "val" else f"val_{name}"
            for metric in (*NETWORK, *(f"bicubic_{one}" for one in NETWORK)):
                curve = {event.step: event.value for event in board.Scalars(f"{tag}/{metric}")}
                assert curve[line["step"]] == pytest.approx(values[metric])
    assert "Validate 3 images of val, 5 of five, 2 of two every 2 steps and at the end" in result.err
    assert "Best     best.pth is chosen by SSIM-Y on five\n" in result.err
    for line in lines:
        shown = result.err[result.err.index(f"Step {line['step']}, val: PSNR-Y ") :].splitlines()[:3]
        assert [text.split(": ")[0].strip() for text in shown] == [f"Step {line['step']}, val", "five", "two"]
        for text, values in zip(shown, (line, *line["sets"].values()), strict=True):
            assert f"PSNR-Y {values['psnr_y']:.2f} dB" in text and f"(bicubic {values['bicubic_ssim_y']:.4f})" in text
    assert len(list((run / "previews").iterdir())) == 2
    rows = [text.split()[0] for text in result.out.splitlines()[:10]]
    assert rows == ["PSNR-Y", *(row for name in ("val", "five", "two") for row in (name, "bicubic", "network"))]


def best_of(run: Path, value: Callable[[dict[str, Any]], float], lowest: bool = False) -> dict[str, Any]:
    return (min if lowest else max)(events(run, "val"), key=value)


def progress(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run / "state.pt", weights_only=True)["progress"]
    return found


def test_best_weights_are_those_of_the_chosen_metric(finished: tuple[Path, Result]) -> None:
    run, result = finished
    best = best_of(run, lambda line: line["sets"]["five"]["ssim_y"])
    found = progress(run)
    assert (found["best"], found["best_step"]) == (best["sets"]["five"]["ssim_y"], best["step"])
    assert found["best_by"] == json.loads((run / "plan.json").read_text())["best_by"] == "ssim_y@five"
    assert f"best weights, {found['best']:.4f} SSIM-Y on five after step {best['step']}\n" in result.out


def test_a_run_accepts_its_own_configuration(finished: tuple[Path, Result], folder: Path, tmp_path: Path) -> None:
    """Also with the sets as a mapping, and one set or metric as a plain value."""
    run, _ = finished
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert written["val"] == [f"five={folder / 'five'}", f"two={folder / 'two'}"] and written["best"] == "ssim_y@five"
    mapping = {"five": str(folder / "five"), "two": str(folder / "two")}
    for number, sets_value in enumerate((written["val"], mapping)):
        config = tmp_path / f"{number}.yaml"
        config.write_text(yaml.safe_dump({**written, "val": sets_value, "out": str(tmp_path / str(number))}))
        train("--config", config)
        again = only_run(tmp_path / str(number))
        assert yaml.safe_load((again / "config.yaml").read_text()) == {**written, "out": str(tmp_path / str(number))}
        assert events(again, "val") == events(run, "val")
        assert (again / "best.pth").read_bytes() == (run / "best.pth").read_bytes()
    config.write_text(yaml.safe_dump({"val": str(folder / "two"), "best": None, "metrics": ["psnr_y"]}))
    train(*arguments(folder, tmp_path / "one", "--config", config, "--steps", 2))
    assert list(events(only_run(tmp_path / "one"), "val")[0]["sets"]) == ["two"]


def test_sets_do_not_change_the_training(finished: tuple[Path, Result], folder: Path, tmp_path: Path) -> None:
    train(*arguments(folder, tmp_path))
    run, alone = finished[0], only_run(tmp_path)
    assert (run / "model.pth").read_bytes() == (alone / "model.pth").read_bytes()
    losses = [[line["loss"] for line in events(one, "train")] for one in (run, alone)]
    assert losses[0] == losses[1]
    for line, other in zip(events(run, "val"), events(alone, "val"), strict=True):
        assert {name: value for name, value in line.items() if name != "sets"} == other


def test_without_a_split_the_first_set_is_the_main_one(folder: Path, tmp_path: Path) -> None:
    result = train(*arguments(folder, tmp_path, *both(folder), "--input", "up", shards="none/scale_2x"))
    run = only_run(tmp_path)
    for line in events(run, "val"):
        assert line["set"] == "five" and list(line["sets"]) == ["two"] and line["psnr_y"] > 0
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    tags = {tag.partition("/")[0] for tag in board.Tags()["scalars"]}
    assert {"val_five", "val_two"} <= tags and "val" not in tags
    assert progress(run)["best_by"] == "psnr_y@five" and (run / "best.pth").exists()
    assert "dB PSNR-Y on five after step" in result.out and len(list((run / "previews").iterdir())) == 2


class _FakeMetrics:
    """LPIPS and DISTS, replaced by the mean absolute difference, and that minus 1."""

    names = ("lpips", "dists")

    def measure(self, outputs: torch.Tensor, targets: torch.Tensor, border: int) -> torch.Tensor:
        inside = slice(border, -border)
        difference = (outputs.double() - targets.double())[:, :, inside, inside].abs().mean((1, 2, 3)) / 255
        return torch.stack([difference, difference - 1], 1)


def test_perceptual_metrics_are_measured_on_every_set(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(training_run, "load_metrics", lambda *args: asked.append(args) or _FakeMetrics())
    monkeypatch.setattr(sets, "is_too_small", lambda *args: False)
    monkeypatch.setattr(training_run, "check_photos", lambda *args: None)
    more = (*both(folder), "--best", "lpips@two", "--metrics", "dists,psnr_y", "--metric-weights", tmp_path)
    result = train(*arguments(folder, tmp_path / "runs", *more))
    run = only_run(tmp_path / "runs")
    assert asked == [(["lpips", "dists"], torch.device("cpu"), tmp_path)]
    for line in events(run, "val"):
        for values in (line, *line["sets"].values()):
            assert values["dists"] == pytest.approx(values["lpips"] - 1)
            assert values["bicubic_lpips"] > 0 and values["psnr_y"] > values["bicubic_lpips"]
            assert f"LPIPS {values['lpips']:.4f} (bicubic {values['bicubic_lpips']:.4f})" in result.err
    best = best_of(run, lambda line: line["sets"]["two"]["lpips"], lowest=True)
    found = progress(run)
    assert (found["best"], found["best_step"]) == (best["sets"]["two"]["lpips"], best["step"])
    assert f"{found['best']:.4f} LPIPS on two after step {best['step']}\n" in result.out
    stop, after = StopRequest(), Validation(opened(folder), perceptual=_FakeMetrics())  # type: ignore[arg-type]
    network = network_spec("ultra_lite", 2).build().eval()
    values = [after.run(network, stop) for _ in range(2)]
    assert values[0] is not None and values[1] is not None and values[0].sets == values[1].sets


# ---- resuming


def stopped(folder: Path, tmp_path: Path, *more: object) -> Path:
    """A run that has validated after step 2 of 4."""
    train(*arguments(folder, tmp_path, "--steps", 2, "--run", "r", *more))
    run = tmp_path / "r"
    config = (run / "config.yaml").read_text().replace("steps: 2\n", "steps: 4\n")
    (run / "config.yaml").write_text(config)
    return run


def test_the_best_value_is_kept_or_forgotten_when_a_run_is_resumed(folder: Path, tmp_path: Path) -> None:
    photos = Path(shutil.copytree(folder / "two", tmp_path / "photos"))
    sets_given = ("--val", f"x={photos}", "--best", "psnr_rgb@x")
    originals = stopped(folder, tmp_path / "original", *sets_given)
    before = progress(originals)
    # A value that cannot be surpassed shows whether it is kept.
    state = torch.load(originals / "state.pt", weights_only=True)
    state["progress"]["best"] = 99.0
    torch.save(state, originals / "state.pt")

    def resumed(name: str, *more: object) -> tuple[Result, dict[str, Any]]:
        shutil.copytree(originals, tmp_path / name / "r")
        result = train("--out", tmp_path / name, "--run", "r", "--resume", *more)
        return result, progress(tmp_path / name / "r")

    result, found = resumed("same")
    assert found["best"] == 99 and found["best_step"] == before["best_step"] == 2 and "best.pth has" not in result.err
    moved = Path(shutil.copytree(photos, tmp_path / "elsewhere"))
    result, found = resumed("moved", "--val", f"x={moved}")
    assert found["best"] == 99 and "best.pth has" not in result.err
    result, found = resumed("metric", "--best", "ssim_y")
    assert found["best"] < 1 and (found["best_by"], found["best_images"]) == ("ssim_y@val", "")
    assert (
        "Note     best.pth has the weights of step 2 (99.00 dB PSNR on x); it is now chosen by SSIM-Y, so the next "
        "validation replaces it\n"
    ) in result.err
    Image.new("RGB", (50, 50)).save(photos / "new.png")
    result, found = resumed("images")
    assert found["best"] < 99 and found["best_images"] != before["best_images"]
    assert (
        "Note     best.pth has the weights of step 2 (99.00 dB PSNR on x); the images of x have changed, so the next "
        "validation replaces it\n"
    ) in result.err


def test_sets_of_a_resumed_run_must_include_that_of_the_best_weights(folder: Path, tmp_path: Path) -> None:
    run = stopped(folder, tmp_path, "--val", f"x={folder / 'two'}", "--best", "psnr_rgb@x")
    result = trainer("--out", tmp_path, "--run", run.name, "--resume", "--val", folder / "five")
    assert result.code == 2 and result.err == (
        "Error: --best psnr_rgb@x: there is no set 'x'; pass it with --val x=FOLDER, or pass --best psnr_rgb@val or "
        "psnr_rgb@five\n"
    )


def test_states_of_earlier_versions_have_the_best_psnr(tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", "data", TrainingProgress(step=3), {})
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    current = {"best", "best_by", "best_images"}
    state["progress"] = {name: value for name, value in state["progress"].items() if name not in current}
    state["progress"] |= {"best_psnr_y": 31.5, "best_step": 2}
    torch.save(state, tmp_path / "state.pt")
    found, _ = load_state(tmp_path / "state.pt", "data")
    assert (found.best, found.best_step, found.best_by) == (31.5, 2, "psnr_y@val")
    state["progress"] |= {"best_by": "fid@val"}
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(UsageError, match=r"state\.pt is damaged or belongs to a different training"):
        load_state(tmp_path / "state.pt", "data")


# ---- pairs passed as photos


def hq_and_lq(root: Path) -> str:
    images(root / "hq", named("{}.png"))
    images(root / "lq", named("{}.png"), 24)
    return f"3 of 6 images are LR or upsampled images by their names, e.g. lq/mountain/img1; pass {root}/hq"


def set5(root: Path) -> str:
    for name in ("GTmod12", "LRbicx2", "LRbicx4"):
        images(root / f"Set5/{name}", ["baby.png"])
    return f"1 of 3 images are LR or upsampled images by their names, e.g. Set5/LRbicx2/baby; pass {root}/Set5/GTmod12"


def of_div2k(root: Path) -> str:
    images(root, ["DIV2K_valid_LR_bicubic/X4/0801x4.png"], 12)
    return "1 of 1 images are LR or upsampled images by their names, e.g. DIV2K_valid_LR_bicubic/X4/0801x4; pass the f"


def in_one_folder(root: Path) -> str:
    images(root, ["0801.png", "0801x4.png"])
    return "1 of 2 images are LR or upsampled images by their names, e.g. 0801x4; pass the folder of the HR images\n"


@pytest.mark.parametrize("make", [hq_and_lq, set5, of_div2k, in_one_folder])
def test_a_folder_with_lr_images_is_no_set(make: Callable[[Path], str], folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    message = f"{data} has not only HR photos: {make(data)}"
    result = trainer(*arguments(folder, tmp_path / "runs"), "--val", f"B={data}")
    assert result.code == 2 and f"Error: set 'B': {message}" in result.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("inner", ["DIV2K_valid_LR_bicubic", "DIV2K_valid_LR_bicubic/X4"])
def test_the_lr_images_of_div2k_are_no_set(inner: str, folder: Path, tmp_path: Path) -> None:
    of_div2k(tmp_path)
    result = trainer(*arguments(folder, tmp_path / "runs"), "--val", f"B={tmp_path / inner}")
    assert result.code == 2 and f"{tmp_path / inner} has not only HR photos: 1 of 1 images" in result.err


def test_hr_images_beside_lr_images_are_a_set(folder: Path, tmp_path: Path) -> None:
    hq_and_lq(tmp_path)
    photos = open_set(NamedSet("B", tmp_path / "hq"), 2, False)
    assert photos.num_images == 3


# ---- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--val a={}/missing", "set 'a': no such file or folder: {}/missing"),
        ("--val a={}/empty", "set 'a': no photos in {}/empty: expected files ending in"),
        (
            "--val a={}/five --val a={}/two",
            "two sets have the name 'a': {}/five and {}/two; name them, ",
        ),
        ("--val {}/five --val {}/five", "two sets have the name 'five'"),
        ("--val val={}/five", "'val' is the name of the validation split of the shards; pass another name, e.g. "),
        ("--val a={}/scale_3x", "{}/scale_3x is 3x, but the network upscales 2x; pass shards of 2x"),
        ("--val a={}/none", "set 'a': {}/none: expected the folder of one scale; pass {}/none/scale_2x"),
        ("--val a@b={}/five", "the name 'a@b' cannot name a set"),
        (
            "--val small={}/small --val broken={}/broken",
            "cannot read 1 photo: {}/broken/b.png (not an image, or its header is damaged); remove it cannot evaluate "
            "1 photo (SSIM-Y needs 11 px inside a border of 2 px): {}/small/tiny.png (14 x 40 px); remove it",
        ),
        ("--val damaged={}/damaged", "cannot read {}/damaged/d.png: truncated PNG"),
        ("--val five={}/five --best ssim_y@fife", "--best ssim_y@fife: there is no set 'fife'; did you mean 'five'?"),
        ("--best ssim_y@zz", "there is no set 'zz'; pass it with --val zz=FOLDER, or pass --best ssim_y@val"),
        ("--best lpisp", "unknown metric 'lpisp'; did you mean 'lpips'?"),
        ("--best zzz", "unknown metric 'zzz'; expected one of psnr_rgb, "),
        ("--best ssim_y@", "'ssim_y@' has no set after the @; expected e.g. ssim_y@val"),
        ("--metrics lpips,disst", "unknown metric 'disst'; did you mean 'dists'?"),
        (
            "--metrics niqe",
            "not 64 x 64 px in all; generate shards with a larger --size, or omit the metric",
        ),
        (
            "--shards {}/none/scale_2x --best ssim_y",
            "--best: this run has no validation images; pass --val ",
        ),
        (
            "--shards {}/none/scale_2x --metrics psnr_y",
            "--metrics: this run has no validation images; pass ",
        ),
    ],
)
def test_bad_sets_and_metrics_are_refused(options: str, message: str, folder: Path, tmp_path: Path) -> None:
    for name in ("empty", "small", "broken", "damaged"):
        (folder / name).mkdir(exist_ok=True)
    Image.new("RGB", (14, 40)).save(folder / "small/tiny.png")
    (folder / "broken/b.png").write_bytes(b"no image")
    Image.fromarray(make_photo(40, 40, 0)).save(folder / "damaged/d.png")
    os.truncate(folder / "damaged/d.png", 1000)
    words = options.replace("{}", str(folder)).split()
    usual = arguments(folder, tmp_path / "runs")
    result = trainer(*(usual[2:] if "--shards" in words else usual), *words)
    assert result.code == 2 and message.replace("{}", str(folder)) in " ".join(result.err.split()), result.err
    assert not list(tmp_path.rglob("state.pt")) and not list(tmp_path.rglob("config.yaml"))


def test_a_missing_package_is_reported_before_the_run_starts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    result = trainer(*arguments(folder, tmp_path / "runs", "--best", "dists"))
    assert result.code == 2 and "pyiqa is not installed, which computes dists; " in result.err
    assert not list((tmp_path / "runs").glob("*/*"))


EXPECTED_SETS = "expected a list of values, or a mapping of names to folders"
EXPECTED_METRICS = "expected names of metrics, separated by commas, e.g. lpips,dists"
EMPTY_PATH = "the path is empty; expected a folder or a file, or . for the working directory"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val": {"a": None}}, f"val: {EXPECTED_SETS}, but one of them is empty"),
        ({"val": [["a"]]}, f"val: {EXPECTED_SETS}, but one of them is a list"),
        ({"val": [{"a": "b"}]}, f"val: {EXPECTED_SETS}, but one of them is a mapping"),
        ({"val": ""}, f"val: '': {EMPTY_PATH}"),
        ({"val": {"a": ""}}, f"val: 'a=': {EMPTY_PATH}"),
        ({"metrics": {"lpips": 1}}, "metrics: expected a list of values, found a mapping"),
        ({"metrics": [None]}, "metrics: expected a list of values, but one of them is empty"),
        ({"metrics": ""}, f"metrics: '': {EXPECTED_METRICS}"),
        ({"metrics": ["lpips", ""]}, f"metrics: 'lpips,': {EXPECTED_METRICS}"),
        ({"metrics": 5}, f"metrics: unknown metric '5'; pass some of {', '.join(METRICS)}"),
        ({"best": ["lpips"]}, "best: expected one value, found a list"),
    ],
)
def test_bad_values_in_a_configuration_are_refused(
    settings: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    result = trainer(*arguments(folder, tmp_path / "runs", "--config", tmp_path / "c.yaml"))
    assert result.code == 2 and result.err == f"Error: {tmp_path / 'c.yaml'}: {message}\n"


@pytest.mark.parametrize("settings", ["val: []\nmetrics: []\n", "val: {}\nmetrics:\n"])
def test_empty_sets_and_metrics_of_a_configuration_replace_those_of_a_run(
    settings: str, folder: Path, tmp_path: Path
) -> None:
    run = stopped(folder, tmp_path, "--val", folder / "two", "--metrics", "psnr_y")
    (tmp_path / "c.yaml").write_text(settings)
    train("--out", tmp_path, "--run", "r", "--resume", "--config", tmp_path / "c.yaml")
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert (written["val"], written["metrics"]) == ([], None)
    assert ["sets" in line for line in events(run, "val")] == [True, False]


def test_verify_covers_the_shards_of_sets(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder / "none/scale_2x", tmp_path / "copy"))
    tar = next(copy.glob("*.tar"))
    overwrite(tar, tar.stat().st_size // 2, b"\0\1\2\3")
    result = trainer(*arguments(folder, tmp_path / "runs", "--val", f"copy={copy}", "--verify"))
    assert result.code == 2 and f"{tar}: SHA-256 differs from manifest.json" in result.err


def test_upsampled_images_of_sets_that_cannot_be_computed(folder: Path, tmp_path: Path) -> None:
    generate(folder / "two", tmp_path / "no_up", "-s", 2, "--no-up", "--size", 32)
    manifest = tmp_path / "no_up/scale_2x/manifest.json"
    manifest.write_text(manifest.read_text().replace('"method": "cubic"', '"method": "spline"'))
    more = ("--val", f"x={tmp_path / 'no_up/scale_2x'}", "--input", "up")
    result = trainer(*arguments(folder, tmp_path / "runs", *more))
    assert result.code == 2
    assert f"set 'x': {manifest.parent} has no upsampled images, and they cannot be computed from LR" in result.err


def test_shards_in_a_store_are_a_set(folder: Path, tmp_path: Path, s3: Bucket) -> None:
    address = s3.put_folder(folder / "scale_2x", "scale_2x")
    more = ("--val", f"far={address}", "--cache", tmp_path / "cache")
    train(*arguments(folder, tmp_path / "runs", *more))
    for line in events(only_run(tmp_path / "runs"), "val"):
        for name in chain(NETWORK, (f"bicubic_{one}" for one in NETWORK)):
            assert line["sets"]["far"][name] == line[name]
