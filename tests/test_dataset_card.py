"""Dataset cards: written with the shards, kept when edited, listing every finished scale of a folder."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_commands import commands
from helpers import all_files, contract_files, generate, make_photos, run_cli
from pairs import make_pairs

from srshards.format import load_json, load_manifest
from tests.drill.s3_server import Bucket

ROOT = Path(__file__).parent.parent
SCALES = ("-s", 2, 4)
CARDS = ("README.md", "scale_2x/README.md", "scale_4x/README.md")
RECIPE = """
- blur: {kernel: {isotropic: 1}, size: 7, sigma: [0.2, 1.5]}
- one_of:
    - {weight: 0.5, steps: [{gaussian_noise: {sigma: [1, 20]}}]}
    - {weight: 0.5, steps: []}
- shuffle: [to_lr, {jpeg: {quality: [60, 95], probability: 0.5}}]
"""


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("few"), 12)


@pytest.fixture(scope="module")
def made(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scales. Read-only."""
    output = tmp_path_factory.mktemp("made")
    generate(few, output, *SCALES, "--codec", "png")
    return output


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def metadata(card: Path) -> dict[str, Any]:
    """Return the parsed YAML header of a card."""
    header = re.match(r"---\n(.*?\n)---\n", card.read_text(), re.DOTALL)
    assert header
    return dict(yaml.safe_load(header[1]))


def test_cards_list_splits_columns_and_sizes(made: Path) -> None:
    root, scale = metadata(made / "README.md"), metadata(made / "scale_4x" / "README.md")
    assert [config["config_name"] for config in root["configs"]] == ["scale_2x", "scale_4x"]
    assert [(file["split"], file["path"]) for file in root["configs"][1]["data_files"]] == [
        ("train", "scale_4x/train-*.tar"),
        ("validation", "scale_4x/val-*.tar"),
    ]
    assert [file["path"] for file in scale["configs"][0]["data_files"]] == ["train-*.tar", "val-*.tar"]
    assert scale["dataset_info"] == root["dataset_info"][1:]
    manifest = load_manifest(made / "scale_4x").raw
    sizes = {split["name"]: split["num_examples"] for split in scale["dataset_info"][0]["splits"]}
    assert sizes == {
        "train": manifest["splits"]["train"]["samples"],
        "validation": manifest["splits"]["val"]["samples"],
    }
    assert scale["license"] == "unknown" and scale["size_categories"] == ["n<1K"]
    assert "From 12 photos, by sr-shards" in (made / "README.md").read_text()


def test_splits_without_samples_are_not_listed(few: Path, tmp_path: Path) -> None:
    generate(few, tmp_path / "out", "--val-fraction", 0)
    assert [file["split"] for file in metadata(tmp_path / "out/README.md")["configs"][0]["data_files"]] == ["train"]


def test_equal_runs_write_equal_cards(made: Path, few: Path, tmp_path: Path) -> None:
    generate(few, tmp_path / "other", *SCALES, "--codec", "png", "--workers", 2)
    assert [(tmp_path / "other" / card).read_bytes() for card in CARDS] == [(made / c).read_bytes() for c in CARDS]


@pytest.mark.parametrize("recipe", ["realesrgan", "my recipe.yaml"])
def test_the_command_in_a_card_makes_equal_shards(
    recipe: str, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    for folder in (first, again):
        folder.mkdir()
        shutil.copytree(few, folder / "photos")
    monkeypatch.chdir(first)
    Path("my recipe.yaml").write_text(RECIPE)
    options = ("--fit", "tile", "--tile-step", 50, "--variants", 2, "--no-up", "--sharpen-hr", "--seed", 7)
    generate(Path("photos"), Path("shards"), *SCALES, *options, "--degradation", recipe, "--val-fraction", 0.3)
    card = Path("shards/README.md").read_text()
    monkeypatch.chdir(again)
    if files := re.findall(r"^`(.*)`:\n\n```yaml\n([^`]*)```", card, re.MULTILINE):
        Path(files[0][0]).write_text(files[0][1])
    (block,) = re.findall(r"```sh\n(.*?)```", card, re.DOTALL)
    (command,) = commands(block)
    assert bool(files) == (recipe != "realesrgan") and command.startswith("python -m shardgen generate ")
    result = run_cli(*shlex.split(command)[3:], "--workers", 0)
    assert result.returncode == 0, result.stderr
    assert contract_files(again / "shards") == contract_files(first / "shards")
    versions = load_manifest(Path("shards/scale_2x")).raw["generator"]["version"]
    assert f"sr-shards {versions}, numpy " in card and "opencv" in card


# ---- cards of users


def test_an_edited_card_is_kept_and_reported_once_outdated(copy: Path, few: Path) -> None:
    card = copy / "scale_2x" / "README.md"
    card.write_text(card.read_text().replace("# Super-resolution shards, 2x", "# My photos"))
    edited = card.read_bytes()
    assert "README.md" not in generate(few, copy, *SCALES, "--codec", "png").stdout, "it still describes the shards"
    result = generate(few, copy, *SCALES, "--codec", "png", "--seed", 1, "--force")
    assert card.read_bytes() == edited and result.stdout.count("README.md") == 1
    assert (
        f"Kept {card}, which shardgen did not write or which was edited, although it does not describe these shards; "
        "to get a new dataset card, rename it and run the same command again." in result.stdout
    )
    card.unlink()
    generate(few, copy, *SCALES, "--codec", "png", "--seed", 1)
    assert "# Super-resolution shards, 2x" in card.read_text()


def test_a_users_own_readme_is_never_overwritten(few: Path, tmp_path: Path) -> None:
    readme = tmp_path / "out" / "README.md"
    readme.parent.mkdir()
    readme.write_bytes(b"notes \xff\n")
    assert f"Kept {readme}, which" in generate(few, tmp_path / "out").stdout
    assert readme.read_bytes() == b"notes \xff\n" and (tmp_path / "out/scale_4x/README.md").exists()


def test_make_shards_in_a_clone_writes_its_card_and_dirties_nothing(few: Path, tmp_path: Path) -> None:
    """`make shards` writes into `shards/` of the repository."""

    def git(*args: object) -> list[str]:
        command = ["git", *map(str, args)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()

    for name in git("ls-files", "shards"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    tracked = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    output = tmp_path / "shards"
    assert "Kept " not in generate(few, output).stdout and (output / "README.md").exists()
    assert {path: path.read_bytes() for path in tracked} == tracked
    files = [path for path in output.rglob("*") if path.is_file() and path not in tracked]
    written = [path.relative_to(tmp_path).as_posix() for path in files]
    assert git("check-ignore", *written) == written


def test_a_license_filled_in_is_kept_in_later_cards(copy: Path, few: Path) -> None:
    card = copy / "README.md"
    card.write_text(re.sub("license: .*", "license: cc-by-4.0", card.read_text()))
    result = generate(few, copy, *SCALES, "--codec", "png", "--seed", 1, "--force")
    assert "Kept" not in result.stdout
    assert metadata(card)["license"] == "cc-by-4.0" and "--seed 1" in card.read_text()


def test_a_scale_of_an_earlier_run_is_listed(copy: Path, few: Path) -> None:
    generate(few, copy, "-s", 3, "--codec", "webp", "--method", "area")
    names = [config["config_name"] for config in metadata(copy / "README.md")["configs"]]
    assert names == ["scale_2x", "scale_3x", "scale_4x"]
    text = (copy / "README.md").read_text()
    assert "| column of `scale_2x`, `scale_4x` |" in text and "| column of `scale_3x` |" in text
    assert "--scales 2 4 " in text and "--scales 3 " in text
    assert (copy / "scale_2x" / "README.md").read_text().count("scale_3x") == 0


def test_folders_that_datasets_cannot_read_are_not_listed(copy: Path, few: Path) -> None:
    shutil.copytree(Path(__file__).parent / "old_files/version_2/scale_2x", copy / "scale_5x")
    (copy / "scale_3x").mkdir()
    (copy / "scale_3x" / "manifest.json").write_text("{")
    (copy / "scale_4x" / "train-000000.idx").write_text("damaged")
    for scale, name, value in ((6, "totals", None), (7, "splits", {})):
        manifest = shutil.copytree(copy / "scale_2x", copy / f"scale_{scale}x") / "manifest.json"
        settings = json.loads(manifest.read_text())["settings"]
        edit(manifest, "settings", {**settings, "scale": scale, "hr_size": 6 * 7})
        edit(manifest, name, value)
    shutil.copytree(copy / "scale_2x", copy / "scale_8x")
    for card in copy.rglob("README.md"):
        card.unlink()
    generate(few, copy, "-s", 2, "--codec", "png")
    assert [config["config_name"] for config in metadata(copy / "README.md")["configs"]] == ["scale_2x"]
    assert not any((copy / f"scale_{scale}x" / "README.md").exists() for scale in (6, 7, 8))


def edit(file: Path, name: str, value: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))


# ---- commands that read


def test_a_finished_folder_without_cards_gets_them_from_generate_only(copy: Path, few: Path) -> None:
    cards = {card: (copy / card).read_bytes() for card in CARDS}
    for card in CARDS:
        (copy / card).unlink()
    before = all_files(copy)
    for command in ("verify", "inspect", "rebuild"):
        key = ("100000000000",) if command == "rebuild" else ()
        assert run_cli(command, *key, copy).returncode == 0
    assert all_files(copy) == before
    assert "up to date" in generate(few, copy, *SCALES, "--codec", "png").stdout
    assert {card: (copy / card).read_bytes() for card in CARDS} == cards


def test_verify_ignores_cards(copy: Path) -> None:
    (copy / "README.md").write_text("mine")
    result = run_cli("verify", copy)
    assert result.returncode == 0 and "all intact" in result.stdout


def test_cards_in_a_store_equal_those_in_a_folder(made: Path, few: Path, s3: Bucket) -> None:
    generate(few, f"{s3.address}/shards", *SCALES, "--codec", "png")
    stored = s3.objects("shards")
    assert {card: stored[card] for card in CARDS} == {card: (made / card).read_bytes() for card in CARDS}
    s3.proxy.requests.clear()
    generate(few, f"{s3.address}/shards", *SCALES, "--codec", "png")
    assert s3.proxy.count("PUT", "*README.md") == 0, "unchanged cards are not written again"
    assert load_json(made / "scale_2x" / "manifest.json")["format_version"] == 3


def test_the_command_of_packed_pairs_makes_equal_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, count in ((Path(), 6), (Path("validation"), 3)):
        make_pairs(folder, count)
        for scale in (2, 3):
            (folder / f"X{scale}").rename(folder / f"LR_{scale}x")
    inputs = [f"--{option}={folder}" for option, folder in (("hr", "HR"), ("lr", "LR_2x"), ("lr", "LR_3x"))]
    inputs += ["--val=validation/HR", "--val-lr=validation/LR_2x", "--val-lr=validation/LR_3x"]
    options = ("--size", 48, "--no-up", "--codec", "webp", "--seed", 3, "--workers", 0, "--auto")
    assert run_cli("pack", *inputs, *options, "-o", "first").returncode == 0
    (block,) = re.findall(r"```sh\n(.*?)```", Path("first/README.md").read_text(), re.DOTALL)
    (command,) = commands(block)
    result = run_cli(*shlex.split(command)[3:], "--workers", 0)
    assert result.returncode == 0, result.stderr
    assert contract_files(Path("shards")) == contract_files(Path("first"))
