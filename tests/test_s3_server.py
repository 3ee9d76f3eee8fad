"""The S3 server of the tests and the proxy that breaks it: what every fault looks like to a client."""

import contextlib
import http.client
import math
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.drill.fault_proxy import FAULT_KINDS, FaultKind
from tests.drill.s3_server import KEY_ID, REGION, Bucket

CONTENT = bytes(range(256)) * 512
SIGNED = f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20200101/{REGION}/s3/aws4_request, SignedHeaders=host, Signature=0"


def patience_s(kind: FaultKind) -> float:
    return 0.3 if kind.startswith("stall") else 100


def ask(s3: Bucket, method: str, key: str, body: bytes | None = None, patience_s: float = 100) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(s3.proxy.endpoint).netloc, timeout=patience_s)
    try:
        connection.request(method, f"/{s3.name}/{key}", body, {"Authorization": SIGNED})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.fixture
def stored(s3: Bucket) -> Iterator[Bucket]:
    s3.server.put(s3.name, "a/object", CONTENT)
    yield s3


def test_without_a_rule_everything_passes_and_is_counted(stored: Bucket) -> None:
    assert ask(stored, "GET", "a/object") == (200, CONTENT)
    assert ask(stored, "PUT", "b", b"new")[0] == 200
    assert ask(stored, "GET", "?list-type=2&prefix=a/")[0] == 200
    assert stored.objects() == {"a/object": CONTENT, "b": b"new"}
    assert stored.proxy.requests == {
        ("GET", f"{stored.name}/a/object"): 1,
        ("PUT", f"{stored.name}/b"): 1,
        ("LIST", f"{stored.name}/a/"): 1,
    }


SEEN: dict[FaultKind, object] = {
    "500": 500,
    "503": 503,
    "gone": 404,
    "reset": ConnectionResetError,
    "answer_lost": ConnectionResetError,
    "reset_body": (ConnectionResetError, http.client.IncompleteRead),
    "truncate": http.client.IncompleteRead,
    "stall": TimeoutError,
    "stall_body": TimeoutError,
}


@pytest.mark.parametrize("kind", SEEN)
def test_a_fault_happens_as_often_as_it_is_told_to_and_to_nothing_else(stored: Bucket, kind: FaultKind) -> None:
    stored.proxy.break_next(kind, "GET", "*/a/object", times=1, skip=1)
    assert ask(stored, "GET", "a/object") == (200, CONTENT)
    if isinstance(SEEN[kind], int):
        assert ask(stored, "GET", "a/object")[0] == SEEN[kind]
    else:
        with pytest.raises(SEEN[kind]):
            ask(stored, "GET", "a/object", patience_s=patience_s(kind))
    assert ask(stored, "GET", "a/object") == (200, CONTENT)
    assert stored.proxy.faults == {kind: 1}


def test_wrong_bytes_have_the_right_length(stored: Bucket) -> None:
    stored.proxy.break_next("wrong_bytes", "GET")
    status, content = ask(stored, "GET", "a/object")
    assert (status, len(content)) == (200, len(CONTENT)) and content != CONTENT


@pytest.mark.parametrize("kind", ["reset", "reset_body", "500", "stall", "stall_body"])
def test_a_broken_upload_stores_nothing(s3: Bucket, kind: FaultKind) -> None:
    s3.proxy.break_next(kind, "PUT", times=math.inf)
    with contextlib.suppress(ConnectionError, TimeoutError):
        assert ask(s3, "PUT", "new", CONTENT, patience_s=patience_s(kind))[0] == 500
    assert s3.objects() == {}


def test_an_upload_whose_answer_is_lost_is_stored(s3: Bucket) -> None:
    s3.proxy.break_next("answer_lost", "PUT")
    with pytest.raises(ConnectionError):
        ask(s3, "PUT", "new", CONTENT)
    assert s3.objects() == {"new": CONTENT}


def test_a_narrow_line_counts_every_byte(stored: Bucket) -> None:
    stored.proxy.bytes_per_s = 1e6
    ask(stored, "GET", "a/object")
    assert stored.proxy.bytes_sent == len(CONTENT)
    assert stored.proxy._free_at_s > 0


def test_every_fault_is_looked_at_here() -> None:
    assert set(FAULT_KINDS) == {*SEEN, "wrong_bytes"}
