"""`verify` reports every broken shard; `--fix` removes exactly those, so that `generate` rebuilds them."""

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import contract_files, generate, run_cli

import srshards
from shardgen.planning import config
from shardgen.shard.writer import ShardWriter
from srshards.format import CODECS, dump_json, load_json
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


def copy_other(folder: Path, extension: str) -> None:
    shutil.copyfile(folder / f"train-000002.{extension}", folder / f"train-000001.{extension}")


def swap_tars(folder: Path) -> None:
    first, second = ((folder / f"train-00000{number}.tar").read_bytes() for number in (1, 2))
    (folder / "train-000001.tar").write_bytes(second)
    (folder / "train-000002.tar").write_bytes(first)


def rewrite(folder: Path, change: Callable[[list[tuple[str, list[bytes]]]], list[tuple[str, list[bytes]]]]) -> None:
    """Replace a shard by a well-formed one with other content and matching index, marker and manifest."""
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
    "a flipped bit": (lambda f: flip(tar_of(f), 5_000), "its SHA-256 differs from its done marker: the content has"),
    "a cut tar": (lambda f: tar_of(f).write_bytes(tar_of(f).read_bytes()[:-600]), " bytes, found "),
    "no tar": (lambda f: tar_of(f).unlink(), "missing"),
    "no index": (lambda f: tar_of(f).with_suffix(".idx").unlink(), "No such file"),
    "the index of another shard": (lambda f: copy_other(f, "idx"), "its index train-000001.idx does not match it"),
    "a flipped digit in the index": (lambda f: flip(f / "train-000001.idx", 20, 0x01), "train-000001.idx"),
    "no marker": (lambda f: tar_of(f).with_suffix(".json").unlink(), "done marker train-000001.json is missing"),
    "a damaged marker": (lambda f: tar_of(f).with_suffix(".json").write_text("{"), "is missing or damaged"),
    "a marker of another shard": (lambda f: copy_other(f, "json"), "marker train-000001.json belongs to train-000002"),
    "two shards swapped": (swap_tars, "train-000002.tar: "),
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


@pytest.mark.parametrize("codec_name", [name for name in CODECS if name != "npy"])
def test_compressed_shards_are_decoded(codec_name: str, photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 4, "--codec", codec_name)
    assert run_cli("verify", tmp_path).returncode == 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_reported_and_fixed(damage: str, photos: Path, shards: Path, shards_copy: Path) -> None:
    inflict, message = DAMAGES[damage]
    inflict(shards_copy / "scale_2x")
    before = contract_files(shards_copy)
    checked = run_cli("verify", shards_copy)
    assert checked.returncode == 1 and contract_files(shards_copy) == before
    assert str(shards_copy / "scale_2x" / "train-000001.tar") in checked.stderr and message in checked.stderr
    assert re.search(r"s (is broken; pass --fix to remove it|are broken; pass --fix to remove them)\n$", checked.stderr)
    assert "Traceback" not in checked.stderr

    fixed = run_cli("verify", shards_copy, "--fix")
    assert fixed.returncode == 1
    assert re.search(
        r" (was|were) removed; run the same `generate` or `pack` command again to rebuild (it|them)\n$", fixed.stderr
    )
    num_broken = sum(".tar: " in line for line in checked.stderr.splitlines())
    again = generate(photos, shards_copy, "-s", 2, 3, "--shard-bytes", "300KB")
    assert f"Shards: {num_broken} built" in again.stdout
    assert contract_files(shards_copy) == contract_files(shards)
    assert run_cli("verify", shards_copy).returncode == 0


def test_fix_does_not_remove_open_shards(shards_copy: Path) -> None:
    folder = shards_copy / "scale_2x"
    opened = srshards.open(folder)
    flip(tar_of(folder), 3000)
    before = contract_files(shards_copy)
    refused = run_cli("verify", folder, "--fix")
    assert refused.returncode == 2 and contract_files(shards_copy) == before
    assert refused.stderr == (
        f"Error: {folder} is open in another process, probably a training, and this run would replace or delete "
        "1 shard in it; wait until that process has exited, or omit --fix to list them\n"
    )
    assert f"{tar_of(folder)}: " in run_cli("verify", folder).stderr
    del opened
    assert run_cli("verify", folder, "--fix").returncode == 1 and not tar_of(folder).exists()


def test_fix_removes_a_broken_manifest_of_open_shards(shards_copy: Path) -> None:
    """Readers have closed it."""
    folder = shards_copy / "scale_2x"
    opened = srshards.open(folder)
    (folder / "manifest.json").write_text("[")
    assert run_cli("verify", folder, "--fix").returncode == 1 and not (folder / "manifest.json").exists()
    del opened


@pytest.mark.parametrize(
    ("inflict", "message"),
    [
        (lambda path: path.unlink(), "missing: generation did not finish"),
        (lambda path: path.write_text("["), "is not valid JSON"),
        (lambda path: edit(path, lambda m: m.update(format_version=99)), "newer than 3; update sr-shards"),
        (lambda path: edit(path, lambda m: m["totals"].update(samples=7)), "its totals do not match"),
        (lambda path: edit(path, lambda m: m["settings"].update(codec="png")), "its settings do not match its"),
        (lambda path: edit(path, lambda m: m["shards"].pop(1)), "its shards do not match the done markers of the sh"),
        (lambda path: edit(path, lambda m: m["shards"][1].update(sha256="0" * 64)), "its shards do not match the done"),
    ],
)
def test_broken_manifest_is_reported_and_fixed(
    inflict: Damage, message: str, photos: Path, shards: Path, shards_copy: Path
) -> None:
    inflict(shards_copy / "scale_3x" / "manifest.json")
    checked = run_cli("verify", shards_copy, "--fix")
    assert checked.returncode == 1 and message in checked.stderr
    num_shards = len(list((shards / "scale_2x").glob("*.tar"))) + len(list((shards / "scale_3x").glob("*.tar")))
    assert f"1 of {num_shards + 2} shards and manifests is broken and was removed; " in checked.stderr
    again = generate(photos, shards_copy, "-s", 2, 3, "--shard-bytes", "300KB")
    assert "All " in again.stdout, "no shard is rebuilt"
    assert contract_files(shards_copy) == contract_files(shards)


def test_intact_shards_verify(shards: Path) -> None:
    result = run_cli("verify", shards)
    assert result.returncode == 0
    num_shards = len(list(shards.rglob("*.tar")))
    assert result.stdout.startswith(f"{num_shards} shards, 80 samples, ") and result.stdout.endswith("all intact.\n")


def test_shards_of_an_earlier_algorithm_verify_and_are_rebuilt(
    photos: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards of an older release stay readable, but equal settings now give other pixels."""
    monkeypatch.setattr(config, "fingerprint_of", partial(config.fingerprint_of, algorithm=1))
    generate(photos, tmp_path, "-s", 2, 3, "--shard-bytes", "300KB")
    monkeypatch.undo()
    old, new = (json.loads((folder / "scale_2x" / "manifest.json").read_text()) for folder in (tmp_path, shards))
    assert old["fingerprint"] != new["fingerprint"] and old["settings"] == new["settings"]
    assert run_cli("verify", tmp_path).returncode == 0
    assert ", 0 kept" in generate(photos, tmp_path, "-s", 2, 3, "--shard-bytes", "300KB").stdout
    assert contract_files(tmp_path) == contract_files(shards)


@pytest.mark.parametrize("command", ["verify", "inspect", "preview", "unpack"])
def test_folder_without_shards_is_an_error(command: str, tmp_path: Path) -> None:
    target = ("-o", tmp_path / "x") if command == "unpack" else ()
    result = run_cli(command, tmp_path, *target)
    assert result.returncode == 2 and f"no shards in {tmp_path}" in result.stderr
    result = run_cli(command, tmp_path / "nowhere", *target)
    assert result.returncode == 2 and f"no such folder: {tmp_path / 'nowhere'}" in result.stderr
    assert "shardgen generate" in result.stderr and "Traceback" not in result.stderr


def test_wrong_settings_remove_the_manifest_only(shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shards / "scale_2x", tmp_path / "mine"))
    edit(folder / "manifest.json", lambda m: m["settings"].update(hr_size=32))
    flip(tar_of(folder), 5_000)  # reported once the manifest is correct
    before = {path.name for path in folder.iterdir()}
    assert run_cli("verify", folder, "--fix").returncode == 1
    assert before - {path.name for path in folder.iterdir()} == {"manifest.json"}
