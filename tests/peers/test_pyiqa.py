"""The perceptual metrics by the real pyiqa 0.1.16, compared with the code of their authors, and NIQE with BasicSR's."""

import json
import os
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest
from basicsr.metrics.niqe import calculate_niqe
from conftest import FOLDER
from numpy.typing import NDArray
from skimage import data

from trainer.metrics_table import METRICS, PERCEPTUAL
from trainer.weights_table import WEIGHTS_FILES

BORDER_PX = 4
FILES = {name: file.url for name, file in WEIGHTS_FILES.items()}


@pytest.fixture(scope="module")
def images() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """N x H x W x 3: outputs, the last of a single colour, and targets. Four blocks of NIQE fit into each."""
    targets = np.stack([data.astronaut()[:201, :243], data.coffee()[100:301, 200:443], data.astronaut()[:201, :243]])
    small = [cv2.resize(target, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) for target in targets]
    outputs = np.stack([cv2.resize(image, (243, 201), interpolation=cv2.INTER_CUBIC) for image in small])
    outputs[-1] = 128
    return outputs, targets


@pytest.fixture(scope="module")
def result(images: tuple[NDArray[np.uint8], ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What metric_values.py prints."""
    folder = tmp_path_factory.mktemp("pyiqa")
    np.savez(folder / "images.npz", *images)
    command = [sys.executable, FOLDER / "metric_values.py", folder / "images.npz", str(BORDER_PX), folder]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent.parent)}  # without the stand-in for torchvision
    printed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(printed)  # so nothing else is printed


@pytest.mark.parametrize("name", ["lpips", "dists", "topiq"])
def test_values_are_those_of_the_authors(result: dict[str, Any], name: str) -> None:
    assert result["values"][name] == pytest.approx(result["by authors"][name], rel=1e-5, abs=1e-6)
    assert len(set(result["values"][name])) == 3


def test_niqe_is_that_of_basicsr(result: dict[str, Any], images: tuple[NDArray[np.uint8], ...]) -> None:
    *photos, plain = result["values"]["niqe"]
    expected = [
        calculate_niqe(output[..., ::-1], crop_border=BORDER_PX, convert_to="gray") for output in images[0][:-1]
    ]
    assert photos == pytest.approx(expected, rel=3e-3)  # the implementations differ by 0.15 %
    assert np.isnan(plain)


def test_values_are_equal_each_time(result: dict[str, Any]) -> None:
    np.testing.assert_array_equal(result["repeated"], list(result["values"].values()))  # where NaN equals NaN


def test_the_table_is_that_of_pyiqa_and_torchvision(result: dict[str, Any]) -> None:
    assert result["addresses"] == FILES
    assert {name: not METRICS[name].higher_is_better for name in PERCEPTUAL} == result["lower is better"]
    assert [name for name in PERCEPTUAL if not METRICS[name].needs_target] == result["without target"]


def test_vgg19_is_that_of_torchvision(result: dict[str, Any]) -> None:
    assert result["vgg19"] < 1e-5
