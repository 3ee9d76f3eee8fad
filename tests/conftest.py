"""Fixtures that several test files share."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

# The networks of the tests are so small that a second thread slows them down. Must be set before PyTorch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import pytest
from browser import chromium
from helpers import generate, make_photos
from hypothesis import settings
from playwright.sync_api import Browser

from tests.drill import warm
from tests.drill.s3_server import Bucket, S3Server, environment, forget_stores, fresh_bucket

# Commands run in this process, which tests fork: a child would wait forever for OpenCV threads that fork does not copy.
cv2.setNumThreads(0)

# The fork server of this process is that of `Warm`, with its preloaded modules, whichever test starts it first.
warm._context()

# Timings of single examples mean nothing on shared machines.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_MARKERS = {"browser": "browser", "cluster": "cluster", "ray_folder": "cluster", "s3_server": "store"}


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures that they use, directly or indirectly, and run the slow files first.

    The short files at the end then keep both workers equally busy.
    """
    for item in items:
        for fixture, marker in _MARKERS.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)
    slow = {item.path for item in items if {"slow", *_MARKERS.values()} & {mark.name for mark in item.iter_markers()}}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def restore_signal_handlers() -> Iterator[None]:
    """Undo the handlers that trainings and Ray leave behind, which the processes of later tests would inherit."""
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 photos in three classes. Read-only: modify a copy."""
    return make_photos(tmp_path_factory.mktemp("photos"), 40)


@pytest.fixture(scope="session")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of `photos` at 2x and 3x, several per scale. Read-only: modify a copy."""
    output = tmp_path_factory.mktemp("shards")
    generate(photos, output, "-s", 2, 3, "--shard-bytes", "300KB")
    return output


@pytest.fixture
def shards_copy(shards: Path, tmp_path: Path) -> Path:
    """A copy of `shards` that the test may change."""
    return Path(shutil.copytree(shards, tmp_path / "shards_copy"))


@pytest.fixture(scope="module")  # not "session": no other event loop can run in the process while it is open
def browser() -> Iterator[Browser]:
    """A real Chromium."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server on loopback; the `s3` fixture provides a bucket on it."""
    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A new bucket behind its own proxy, configured in the environment of this process, without faults."""
    with fresh_bucket(s3_server) as bucket:
        for name, value in environment(bucket.proxy.endpoint, timeout_s=20.0).items():
            monkeypatch.setenv(name, value)
        forget_stores()
        yield bucket
    forget_stores()
