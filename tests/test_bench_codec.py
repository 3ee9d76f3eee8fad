"""The benchmark of codecs."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import make_photos

from benchmarks import bench_codec
from srshards import native


@pytest.mark.slow
def test_command_measures_every_codec(tmp_path: Path) -> None:
    photos, output = make_photos(tmp_path / "photos", 3), tmp_path / "codec.json"
    few = ["--count", "2", "--drawings", "2", "--crops", "1", "--rounds", "1"]
    arguments = [*few, "--photos", str(photos), "--scratch", str(tmp_path), "-o", str(output)]
    result = CliRunner().invoke(bench_codec.main, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(output.read_text())
    names = ["npy", "png", "webp", *(["tlc"] if native.is_available() else []), "tlc, NumPy"]
    for kind in ("photos", "drawings"):
        of_kind = found[kind]["cases"]
        assert found[kind]["images"] == 2 and sorted(of_kind) == sorted(names)
        assert of_kind["npy"]["size"] == round(1 + 128 / (3 * 512**2), 4) > of_kind["png"]["size"]
        assert len({case["size"] for name, case in of_kind.items() if name.startswith("tlc")}) == 1
        assert all(case[time]["median"] >= 0 for case in of_kind.values() for time in ("encode_ms", "decode_ms"))
    assert "photos, CPU time per image" in result.output and "tlc, NumPy" in result.output


def test_drawings_differ_and_repeat() -> None:
    first, second = bench_codec.draw(0), bench_codec.draw(1)
    assert first.shape == (512, 512, 3) and not np.array_equal(first, second)
    assert np.array_equal(first, bench_codec.draw(0))
