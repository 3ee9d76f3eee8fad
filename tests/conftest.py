"""Fixtures that several test files share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

# The networks of the tests are so small that a second thread costs more than it gives. Before PyTorch is loaded.
os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import pytest
from browser import chromium
from helpers import generate, make_photos
from hypothesis import settings
from playwright.sync_api import Browser

from tests.drill.s3_server import Bucket, S3Server, environment, forget_stores, fresh_bucket

# Commands run in this process, and tests fork it: a child would wait for threads of OpenCV that it does not have.
cv2.setNumThreads(0)

# Machines are shared: how long an example takes says nothing.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_MARKERS = {"browser": "browser", "cluster": "cluster", "ray_folder": "cluster", "s3_server": "store"}


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures that they use, directly or through others, and begin with the files that take long.

    At the end, two workers then have short files to share, and neither waits for the other.
    """
    for item in items:
        for fixture, marker in _MARKERS.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)
    long = {item.path for item in items if {"slow", *_MARKERS.values()} & {mark.name for mark in item.iter_markers()}}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """A training that has ended ignores Ctrl-C, and Ray listens to SIGTERM: what later tests start would inherit it."""
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 photos in three classes. Not to be changed: copy what you change."""
    return make_photos(tmp_path_factory.mktemp("photos"), 40)


@pytest.fixture(scope="session")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of `photos` at 2x and 3x, several per scale. Not to be changed: copy what you change."""
    output = tmp_path_factory.mktemp("shards")
    generate(photos, output, "-s", 2, 3, "--shard-bytes", "300KB")
    return output


@pytest.fixture(scope="module")  # not of the session: while it is there, no other event loop can run in its process
def browser() -> Iterator[Browser]:
    """A real Chromium."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server on loopback. `s3` gives a bucket of it to a test."""
    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A fresh bucket behind a proxy of its own, where this process and its children find it. No fault is set."""
    with fresh_bucket(s3_server) as bucket:
        for name, value in environment(bucket.proxy.endpoint, timeout_s=20.0).items():
            monkeypatch.setenv(name, value)
        forget_stores()
        yield bucket
    forget_stores()
