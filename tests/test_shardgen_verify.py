"""`verify` names every broken shard; `--fix` removes exactly those, so that `generate` makes them again."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import contract_files, generate, run_cli

from shardgen.planning import config
from shardgen.shard.writer import ShardWriter
from srshards.format import dump_json, load_json
from srshards.imaging import codec
from srshards.shards.tar_index import load_index

Damage = Callable[[Path], None]


def flip(path: Path, offset: int, bits: int = 0x40) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= bits
    path.write_bytes(data)


def edit(path: Path, change: Callable[[dict], None]) -> None:
    value = load_json(path)
    change(value)
    path.write_bytes(dump_json(value))


def tar_of(folder: Path) -> Path:
    return folder / "train-000001.tar"


def rewrite(folder: Path, change: Callable[[list[tuple[str, list[bytes]]]], list[tuple[str, list[bytes]]]]) -> None:
    """Put a well-formed shard with other content in place, with index, marker and manifest to match."""
    old, index = tar_of(folder).read_bytes(), load_index(tar_of(folder).with_suffix(".idx"))
    writer = ShardWriter(folder, folder, "train-000001", "train")
    for sample in index:
        members = [(m.extension, [old[m.offset : m.offset + m.size]]) for m in sample]
        writer.add(sample[0].name.partition(".")[0], change(members))
    record = writer.commit()
    assert record is not None
    edit(folder / "train-000001.json", lambda marker: marker.update(record=record.as_dict()))
    edit(folder / "manifest.json", lambda m: m["shards"].__setitem__(1, record.as_dict()))


def wrong_size(members: list[tuple[str, list[bytes]]]) -> list[tuple[str, list[bytes]]]:
    return [members[0], (members[1][0], codec.encode("npy", np.zeros((9, 9, 3), np.uint8))), *members[2:]]  # type: ignore[list-item]


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a flipped bit": (
        lambda f: flip(tar_of(f), 5_000),
        "its SHA-256 differs from its done marker: the content has changed",
    ),
    "a cut tar": (lambda f: tar_of(f).write_bytes(tar_of(f).read_bytes()[:-600]), " bytes, found "),
    "no tar": (lambda f: tar_of(f).unlink(), "no such file"),
    "no index": (lambda f: tar_of(f).with_suffix(".idx").unlink(), "No such file"),
    "the index of another shard": (
        lambda f: shutil.copyfile(f / "train-000002.idx", f / "train-000001.idx"),
        "its index train-000001.idx does not match it",
    ),
    "a flipped digit in the index": (
        lambda f: flip(f / "train-000001.idx", 20, 0x01),
        "train-000001.idx",
    ),
    "no marker": (lambda f: tar_of(f).with_suffix(".json").unlink(), "done marker train-000001.json is missing"),
    "a damaged marker": (lambda f: tar_of(f).with_suffix(".json").write_text("{"), "is missing or damaged"),
    "a marker of another shard": (
        lambda f: shutil.copyfile(f / "train-000002.json", f / "train-000001.json"),
        "its done marker train-000001.json belongs to train-000002",
    ),
    "two shards swapped": (
        lambda f: (
            (f / "train-000001.tar").rename(f / "x")
            and (f / "train-000002.tar").rename(f / "train-000001.tar")
            and (f / "x").rename(f / "train-000002.tar")
        ),
        "train-000002.tar: ",
    ),
    "a missing member": (lambda f: rewrite(f, lambda members: members[:2] + members[3:]), "expected members"),
    "LR of the wrong size": (lambda f: rewrite(f, wrong_size), " at scale 2 and HR 64 px"),
    "an undecodable member": (
        lambda f: rewrite(f, lambda members: [(members[0][0], [b"\x93NUMPY garbage"]), *members[1:]]),
        "hr.npy cannot be decoded as npy",
    ),
    "a json without a source": (
        lambda f: rewrite(f, lambda members: [*members[:3], ("json", [b'{"class": "x"}'])]),
        "000000100000.json has no source",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_named_and_mended(damage: str, photos: Path, shards: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(shards, tmp_path / "mine"))
    spoil, message = DAMAGES[damage]
    spoil(mine / "scale_2x")
    found = run_cli("verify", mine)
    assert found.returncode == 1
    assert str(mine / "scale_2x" / "train-000001.tar") in found.stderr and message in found.stderr
    assert "are broken. Pass --fix to remove them." in found.stderr and "Traceback" not in found.stderr

    fixed = run_cli("verify", mine, "--fix")
    assert (
        fixed.returncode == 1
        and "They were removed; run the same generate command again to rebuild them." in fixed.stderr
    )
    num_broken = sum(".tar: " in line for line in found.stderr.splitlines())
    again = generate(photos, mine, "-s", 2, 3, "--shard-bytes", "300KB")
    assert f"Shards: {num_broken} built" in again.stdout
    assert contract_files(mine) == contract_files(shards)
    assert run_cli("verify", mine).returncode == 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "missing: generation did not finish"),
        (lambda path: path.write_text("["), "is not valid JSON"),
        (lambda path: edit(path, lambda m: m.update(format_version=99)), "newer than 2: update sr-shards"),
        (lambda path: edit(path, lambda m: m["totals"].update(samples=7)), "its totals do not match"),
        (lambda path: edit(path, lambda m: m["settings"].update(codec="png")), "its settings do not match its"),
        (lambda path: edit(path, lambda m: m["shards"].pop(1)), "its shards do not match the done markers of the sh"),
        (lambda path: edit(path, lambda m: m["shards"][1].update(sha256="0" * 64)), "its shards do not match the done"),
    ],
)
def test_a_broken_manifest_is_named_and_mended(
    spoil: Damage, message: str, photos: Path, shards: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(shards, tmp_path / "mine"))
    spoil(mine / "scale_3x" / "manifest.json")
    found = run_cli("verify", mine, "--fix")
    assert found.returncode == 1 and message in found.stderr
    num_shards = len(list((shards / "scale_2x").glob("*.tar"))) + len(list((shards / "scale_3x").glob("*.tar")))
    assert f"1 of {num_shards + 2} shards and manifests are broken." in found.stderr
    again = generate(photos, mine, "-s", 2, 3, "--shard-bytes", "300KB")
    assert "All " in again.stdout, "no shard is made again for it"
    assert contract_files(mine) == contract_files(shards)


def test_whole_shards_are_said_to_be_whole(shards: Path) -> None:
    done = run_cli("verify", shards)
    assert done.returncode == 0
    num_shards = len(list(shards.rglob("*.tar")))
    assert done.stdout.startswith(f"{num_shards} shards, 80 samples, ") and done.stdout.endswith("all intact.\n")


def test_shards_of_an_earlier_algorithm_are_whole_and_made_again(
    photos: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an older release made stays readable; equal settings give other pixels now, so `generate` makes it anew."""
    monkeypatch.setattr(config, "fingerprint_of", partial(config.fingerprint_of, algorithm=1))
    generate(photos, tmp_path, "-s", 2, 3, "--shard-bytes", "300KB")
    monkeypatch.undo()
    old, new = (json.loads((folder / "scale_2x" / "manifest.json").read_text()) for folder in (tmp_path, shards))
    assert old["fingerprint"] != new["fingerprint"] and old["settings"] == new["settings"]
    assert run_cli("verify", tmp_path).returncode == 0
    assert ", 0 kept" in generate(photos, tmp_path, "-s", 2, 3, "--shard-bytes", "300KB").stdout
    assert contract_files(tmp_path) == contract_files(shards)


@pytest.mark.parametrize("codec_name", ["png", "webp"])
def test_compressed_shards_are_decoded(codec_name: str, photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 4, "--codec", codec_name)
    assert run_cli("verify", tmp_path).returncode == 0


def test_verify_changes_nothing_without_fix(shards: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(shards, tmp_path / "mine"))
    flip(mine / "scale_2x" / "train-000001.tar", 5_000)
    before = contract_files(mine)
    run_cli("verify", mine)
    assert contract_files(mine) == before


@pytest.mark.parametrize("command", ["verify", "inspect", "preview", "unpack"])
def test_a_folder_without_shards_is_named(command: str, tmp_path: Path) -> None:
    target = ("-o", tmp_path / "x") if command == "unpack" else ()
    done = run_cli(command, tmp_path, *target)
    assert done.returncode == 2 and f"no shards in {tmp_path}" in done.stderr
    done = run_cli(command, tmp_path / "nowhere", *target)
    assert done.returncode == 2 and f"no such folder: {tmp_path / 'nowhere'}" in done.stderr
    assert "shardgen generate" in done.stderr and "Traceback" not in done.stderr


def test_a_settings_fault_costs_no_shard(shards: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(shards / "scale_2x", tmp_path / "mine"))
    edit(mine / "manifest.json", lambda m: m["settings"].update(hr_size=32))
    flip(tar_of(mine), 5_000)  # which verify says when the manifest is there again
    before = {path.name for path in mine.iterdir()}
    assert run_cli("verify", mine, "--fix").returncode == 1
    assert before - {path.name for path in mine.iterdir()} == {"manifest.json"}
