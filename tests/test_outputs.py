"""What stands where a command is to write: only what the same command wrote is replaced."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import SMALL, all_files, generate, make_photo, make_photos, run_cli, trainer
from PIL import Image

from srshards.imaging.provenance import exif_mark

NOT_OURS = "already exists, and {} did not write it: pass another --output, or remove it first"


class Ended:
    """How a command of either package ended."""

    def __init__(self, done: Any) -> None:
        self.code = done.code if hasattr(done, "code") else done.returncode
        self.err = done.err if hasattr(done, "err") else done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, shards of them, a run, and a file of photos to be left out. Only new files may be written there."""
    folder = tmp_path_factory.mktemp("outputs")
    make_photos(folder / "photos", 6)
    generate(folder / "photos", folder / "shards", "-s", 2, "--degradation", "realesrgan")
    words = ("--shards", folder / "shards" / "scale_2x", "--out", folder / "runs", "--run", "full", "--steps", 2)
    assert trainer(*words, *SMALL, "--val-every", 1).code == 0
    (folder / "exclude.txt").write_text("class0/img0.jpg\n")
    return folder


def commands(place: Path) -> dict[str, tuple[str, Callable[..., Any], tuple[object, ...]]]:
    """By what they write: the command's name, what runs it, and its words but for `-o`."""
    shards, best = place / "shards" / "scale_2x", place / "runs" / "full" / "best.pth"
    photo = place / "photos" / "class0" / "img0.jpg"
    return {
        "report.html": ("shardgen or trainer report", run_cli, ("report", shards, "--samples", 2)),
        "preview.png": ("shardgen preview", run_cli, ("preview", shards, "--count", 1)),
        "recipe.png": ("shardgen preview", run_cli, ("preview", photo, "--recipe", "realesrgan", "--count", 1)),
        "runs.html": ("shardgen or trainer report", trainer, ("report", place / "runs" / "full")),
        "model.onnx": ("trainer export", trainer, ("export", "--weights", best)),
        "large.png": ("trainer upscale", trainer, ("upscale", photo, "--weights", best, "--device", "cpu")),
        "large.jpg": ("trainer upscale", trainer, ("upscale", photo, "--weights", best, "--device", "cpu")),
        "large.webp": ("trainer upscale", trainer, ("upscale", photo, "--weights", best, "--device", "cpu")),
    }


FILES = ("report.html", "preview.png", "recipe.png", "runs.html", "model.onnx")
WRITTEN = (*FILES, "large.png", "large.jpg", "large.webp")
TAKEN = (
    *("shards/scale_2x/train-000000.tar", "shards/scale_2x/train-000000.idx", "shards/scale_2x/train-000000.json"),
    *("shards/scale_2x/manifest.json", "shards/processing_stats.json", "exclude.txt", "photos/class0/img0.jpg"),
    *("photos/class1/img4.png", "runs/full/best.pth", "runs/full/model.pth", "runs/full/state.pt"),
    *("runs/full/journal.jsonl", "runs/full/config.yaml", "runs/full/plan.json"),
)


@pytest.mark.parametrize("written", FILES)
def test_no_command_replaces_a_file_that_it_did_not_write(written: str, place: Path) -> None:
    program, run, words = commands(place)[written]
    previews = sorted((place / "runs" / "full" / "previews").glob("*.png"))
    assert previews
    for path in (*(place / name for name in TAKEN), previews[0]):
        before = path.read_bytes()
        done = Ended(run(*words, "-o", path))
        assert done.code == 2 and f"{path} {NOT_OURS.format(program)}" in done.err, done.err
        assert path.read_bytes() == before


@pytest.mark.parametrize("how", ["symbolic link", "hard link", "another spelling"])
def test_links_and_spellings_are_seen_through(how: str, place: Path, tmp_path: Path) -> None:
    best = place / "runs" / "full" / "best.pth"
    target = tmp_path / "model.onnx"
    if how == "symbolic link":
        target.symlink_to(best)
    elif how == "hard link":
        os.link(best, target)
    else:
        target = place / "runs" / ".." / "runs" / "full" / "best.pth"
    before = best.read_bytes()
    done = trainer("export", "--weights", best, "-o", target)
    assert done.code == 2 and f"{target} {NOT_OURS.format('trainer export')}" in done.err
    assert best.read_bytes() == target.read_bytes() == before


@pytest.mark.parametrize("written", WRITTEN)
def test_what_a_command_wrote_it_writes_again_and_others_do_not(written: str, place: Path, tmp_path: Path) -> None:
    program, run, words = commands(place)[written]
    output = tmp_path / written
    for _ in range(2):
        done = Ended(run(*words, "-o", output))
        assert done.code == 0, done.err
    first = output.read_bytes()
    for other, (its_program, its_run, its_words) in commands(place).items():
        if its_program != program and other != "model.onnx":
            done = Ended(its_run(*its_words, "-o", output))
            assert done.code == 2 and output.read_bytes() == first, other


@pytest.mark.parametrize("name", ["shards/scale_2x/x.png", "photos/class1/img4.png", "preview of the run"])
def test_upscale_replaces_nothing_but_its_own(name: str, place: Path, tmp_path: Path) -> None:
    _, run, words = commands(place)["large.png"]
    path = place / name
    if name == "preview of the run":
        path = sorted((place / "runs" / "full" / "previews").glob("*.png"))[0]
    elif not path.exists():
        Image.fromarray(make_photo(10, 10, 0)).save(path)
    before = path.read_bytes()
    done = run(*words, "-o", path)
    assert done.code == 2 and NOT_OURS.format("trainer upscale") in done.err
    (tmp_path / "img0_2x.png").write_bytes(before)
    done = run(*words, "-o", tmp_path)
    assert done.code == 2 and f"{tmp_path / 'img0_2x.png'} {NOT_OURS.format('trainer upscale')}" in done.err
    (tmp_path / "img0_2x.png").rename(tmp_path / "img0_2x_compare.png")
    done = run(*words, "-o", tmp_path, "--compare")
    assert done.code == 2 and "img0_2x_compare.png already exists" in done.err
    assert path.read_bytes() == (tmp_path / "img0_2x_compare.png").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["img0_2x_compare.png"]


def test_upscale_writes_its_own_again(place: Path, tmp_path: Path) -> None:
    _, run, words = commands(place)["large.png"]
    replaced = "replaced the existing file"
    first = run(*words, "-o", tmp_path, "--compare")
    assert first.code == 0 and replaced not in first.out
    again = run(*words, "-o", tmp_path, "--compare")
    assert again.code == 0 and again.out.count(replaced) == 2
    assert f"img0_2x_compare.png  bicubic | network, {replaced}\n" in again.out
    own = tmp_path / "img0_2x.png"
    refused = run("upscale", own, *words[2:], "-o", own)
    assert refused.code == 2 and "is one of the photos and would be overwritten" in refused.err


def test_a_result_of_any_size_is_known_again(place: Path, tmp_path: Path) -> None:
    """Pillow by itself refuses images of so many pixels."""
    Image.new("1", (20_000, 10_000)).save(tmp_path / "large.png", exif=exif_mark("trainer upscale"))
    _, run, words = commands(place)["large.png"]
    done = run(*words, "-o", tmp_path / "large.png")
    assert done.code == 0 and "replaced the existing file" in done.out, done.err


def test_a_preview_does_not_replace_its_photo(place: Path, tmp_path: Path) -> None:
    """Which is a preview itself, and so could be replaced."""
    assert run_cli("preview", place / "shards" / "scale_2x", "-o", tmp_path / "p.png").returncode == 0
    before = (tmp_path / "p.png").read_bytes()
    done = run_cli("preview", "--recipe", "realesrgan", tmp_path / "p.png", "-o", tmp_path / "p.png")
    assert done.returncode == 2 and "p.png is the photo itself: pass another --output" in done.stderr
    assert (tmp_path / "p.png").read_bytes() == before


def test_rebuild_replaces_its_own_alone(place: Path, tmp_path: Path) -> None:
    words = ("rebuild", "000000000000", place / "shards", "-o", tmp_path)
    for _ in range(2):
        assert run_cli(*words).returncode == 0
    (own,) = tmp_path.iterdir()
    own.write_text("mine")
    done = run_cli(*words)
    assert done.returncode == 2 and f"{own} {NOT_OURS.format('shardgen rebuild')}" in done.stderr
    assert own.read_text() == "mine"


@pytest.mark.parametrize("written", ["report.html", "preview.png", "runs.html", "model.onnx"])
def test_a_file_to_write_lies_on_this_machine_and_is_no_folder(written: str, place: Path, tmp_path: Path) -> None:
    _, run, words = commands(place)[written]
    done = Ended(run(*words, "-o", tmp_path))
    assert done.code == 2 and f"{tmp_path} is a folder: pass the file to write, e.g. {tmp_path}/" in done.err
    done = Ended(run(*words, "-o", "s3://bucket/file"))
    assert done.code == 2 and "s3://bucket/file is in an object store; expected a local path" in done.err


def test_a_home_folder_is_found(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trainer("report", place / "runs" / "full", "-o", "~/r.html").code == 0
    assert (tmp_path / "r.html").is_file()


@pytest.mark.parametrize("name", ["best.pth", "model.pth", "journal.jsonl", "plan.json"])
def test_a_new_run_does_not_replace_files_of_another(name: str, place: Path, tmp_path: Path) -> None:
    """Weights that somebody put there and that `--init` names, say."""
    (tmp_path / "mine").mkdir()
    path = tmp_path / "mine" / name
    shutil.copyfile(place / "runs" / "full" / "best.pth", path)
    before = path.read_bytes()
    words = (
        "--shards",
        place / "shards" / "scale_2x",
        "--out",
        tmp_path,
        "--run",
        "mine",
        "--steps",
        2,
        "--init",
        path,
    )
    done = trainer(*words, *SMALL)
    assert done.code == 2, done.out
    assert f"{tmp_path / 'mine'} contains {name}, which a new run would overwrite; pass another --run" in done.err
    assert all_files(tmp_path / "mine") == {name} and path.read_bytes() == before
