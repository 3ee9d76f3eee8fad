"""`generate` refuses folders of pairs, with the command that packs them, and no folder of photos."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import generate, run_cli
from pair_folders import NAMES, image, images, named, old_scripts

from shardgen.pairs.find import find_pairs
from tests.drill.s3_server import Bucket


def refusal(root: object, output: object = "shards") -> str:
    result = run_cli("generate", "-i", root, "-o", output, "--dry-run")
    assert (result.returncode, result.stdout) == (2, ""), result.stdout
    return result.stderr


def suggested_roots(message: str) -> list[str]:
    """Return the --hr and --lr of the suggested command."""
    (command,) = re.findall(r"`python -m shardgen (pack [^`]+)`", message)
    pack, hr_option, hr, lr_option, lr, *rest = shlex.split(command)
    assert (pack, hr_option, lr_option, rest) == ("pack", "--hr", "--lr", ["-o", "shards"])
    return [hr, lr]


def old_workflow(root: Path) -> tuple[Path, Path]:
    images(root / "my OST", named("{}.jpg"))
    old_scripts(root / "OST_LR", 4)
    old_scripts(root / "OST_LR", 2, 24)
    return root / "my OST", root / "OST_LR"


def few_of_the_old_workflow(root: Path) -> tuple[Path, Path]:
    images(root / "OST", [f"sky/{number}.jpg" for number in range(9)])
    images(root / "OST_LR/scale_4x", ["sky/1_lr_4x.png"], 12)
    images(root / "OST_LR/scale_4x", ["sky/1_upsampled_4x.png"])
    return root / "OST", root / "OST_LR"


def old_workflow_in_one_folder(root: Path) -> tuple[Path, Path]:
    images(root, named("{}.png"))
    images(root, named("{}_lr_4x.png"), 12)
    return root, root


def div2k(root: Path) -> tuple[Path, Path]:
    images(root / "DIV2K_train_HR", ["0001.png", "0002.png"])
    for scale in (2, 3, 4):
        images(root / f"DIV2K_train_LR_bicubic/X{scale}", [f"000{n}x{scale}.png" for n in (1, 2)], 48 // scale)
    return root / "DIV2K_train_HR", root / "DIV2K_train_LR_bicubic"


def hq_and_lq(root: Path) -> tuple[Path, Path]:
    images(root / "wtp/hq", named("{}.png"))
    images(root / "wtp/lq", named("{}.png"), 24)
    return root / "wtp/hq", root / "wtp/lq"


def scaled_names_beside(root: Path) -> tuple[Path, Path]:
    images(root, named("{}.png"))
    images(root, named("{}x4.png"), 12)
    return root, root


def scaled_names_in_another_folder(root: Path) -> tuple[Path, Path]:
    images(root / "originals", named("{}.png"))
    images(root / "small", named("{}x4.png"), 12)
    return root / "originals", root / "small"


@pytest.mark.parametrize(
    "make",
    [
        old_workflow,
        few_of_the_old_workflow,
        old_workflow_in_one_folder,
        div2k,
        hq_and_lq,
        scaled_names_beside,
        scaled_names_in_another_folder,
    ],
)
def test_a_folder_of_pairs_is_refused_with_the_command_that_packs_them(
    make: Callable[[Path], tuple[Path, Path]], tmp_path: Path
) -> None:
    hr, lr = make(tmp_path)
    message = refusal(tmp_path)
    assert message.startswith(f"Error: {tmp_path} has HR/LR pairs, not only photos: ")
    assert message.endswith(", or pass --as-photos to use all images as photos\n")
    assert suggested_roots(message) == [str(hr), str(lr)]
    assert find_pairs(hr, [lr], skip_unpaired=make is few_of_the_old_workflow).pairs, "the command finds the pairs"


def test_the_message_in_full(tmp_path: Path) -> None:
    old_workflow(tmp_path)
    assert refusal(tmp_path, tmp_path / "out") == (
        f"Error: {tmp_path} has HR/LR pairs, not only photos: 12 of 15 images are LR or upsampled images by their "
        f"names, e.g. OST_LR/scale_2x/mountain/img1_lr_2x; to pack the pairs, run `python -m shardgen pack --hr "
        f"'{tmp_path}/my OST' --lr {tmp_path}/OST_LR -o {tmp_path}/out`, or pass --as-photos to use all "
        "images as photos\n"
    )


def test_lr_folders_alone_are_refused(tmp_path: Path) -> None:
    lr = old_workflow(tmp_path)[1]
    for folder in (lr, lr / "scale_4x"):
        assert suggested_roots(refusal(folder)) == ["PHOTOS", str(folder)]
    hr, lr = hq_and_lq(tmp_path)
    assert suggested_roots(refusal(lr)) == [str(hr), str(lr)]
    generate(hr, tmp_path / "shards", "--dry-run")
    lr = div2k(tmp_path)[1]
    assert suggested_roots(refusal(lr / "X4")) == ["PHOTOS", str(lr / "X4")]
    assert suggested_roots(refusal(lr)) == [str(lr.with_name("DIV2K_train_HR")), str(lr)]


def test_the_output_of_unpack_is_refused(shards: Path, tmp_path: Path) -> None:
    assert run_cli("unpack", shards, "-o", tmp_path / "unpacked").returncode == 0
    folder = str(tmp_path / "unpacked/scale_2x")
    assert suggested_roots(refusal(tmp_path / "unpacked")) == suggested_roots(refusal(folder)) == [folder, folder]
    assert len(find_pairs(Path(folder), [Path(folder)]).pairs) == 40


def test_as_photos_insists(tmp_path: Path) -> None:
    old_workflow_in_one_folder(tmp_path / "photos")
    result = generate(tmp_path / "photos", tmp_path / "shards", "--as-photos", "--val-fraction", 0)
    assert f"{2 * len(NAMES)} samples in 1 shard" in result.stdout


def test_excluded_pairs_are_not_refused(tmp_path: Path) -> None:
    old_workflow_in_one_folder(tmp_path / "photos")
    exclude = tmp_path / "exclude.txt"
    exclude.write_text("".join(f"{name}_lr_4x.png\n" for name in NAMES))
    result = generate(tmp_path / "photos", tmp_path / "shards", "--exclude", exclude, "--dry-run")
    assert "Photos  3 of 3" in result.stdout


def test_pairs_in_a_store_are_refused(s3: Bucket, tmp_path: Path) -> None:
    root = s3.put_folder(hq_and_lq(tmp_path / "data")[0].parent, "wtp")
    for folder in (root, f"{root}/lq"):
        assert suggested_roots(refusal(folder)) == [f"{root}/hq", f"{root}/lq"]


@pytest.mark.parametrize(
    "names",
    [
        ["box4.jpg", "fox2.jpg", "bo.jpg", "a.jpg", "b.jpg", "c.jpg"],
        ["box4.jpg", "fox2.jpg", "bo.jpg", "a.jpg"],
        ["a.jpg", "ax4.jpg", "b.jpg", "bx2.jpg", "c.jpg"],
        ["sunsetx4.jpg", "beachx4.jpg", "hillx4.jpg"],
        ["LR/a.jpg", "RL/b.jpg"],
        ["hq/a.jpg", "hq/b.jpg", "lq/c.jpg", "lq/d.jpg"],
        ["Mustang_GT/1.jpg", "Mustang_GT/2.jpg", "Mustang/1.jpg", "Mustang/2.jpg"],
        ["portrait_lr_4x.jpg", "a.jpg", "b.jpg"],
        ["x4/a.jpg", "x4/b.jpg"],
        ["HR/a.jpg"],
    ],
)
def test_photos_with_similar_names_are_not_refused(names: list[str], tmp_path: Path) -> None:
    images(tmp_path / "photos", names)
    generate(tmp_path / "photos", tmp_path / "shards", "--dry-run")


def test_a_folder_above_that_cannot_be_listed_gives_no_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lr = hq_and_lq(tmp_path)[1]

    def denied(folder: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("srshards.pair_names.list_folders", denied)
    image(lr / "extra.png")
    generate(lr, tmp_path / "shards", "--dry-run")
