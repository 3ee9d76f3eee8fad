"""The S3 server and the fault proxy of the tests: what a client sees of every fault."""

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


def timeout_s(kind: FaultKind) -> float:
    return 0.3 if kind.startswith("stall") else 100


def request(s3: Bucket, method: str, key: str, body: bytes | None = None, timeout_s: float = 100) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(s3.proxy.endpoint).netloc, timeout=timeout_s)
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


def test_without_a_rule_requests_are_forwarded_and_counted(stored: Bucket) -> None:
    assert request(stored, "GET", "a/object") == (200, CONTENT)
    assert request(stored, "PUT", "b", b"new")[0] == 200
    assert request(stored, "GET", "?list-type=2&prefix=a/")[0] == 200
    assert stored.objects() == {"a/object": CONTENT, "b": b"new"}
    assert stored.proxy.requests == {
        ("GET", f"{stored.name}/a/object"): 1,
        ("PUT", f"{stored.name}/b"): 1,
        ("LIST", f"{stored.name}/a/"): 1,
    }


EXPECTED: dict[FaultKind, object] = {
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


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_fault_is_injected_into_exactly_the_requests_of_its_rule(stored: Bucket, kind: FaultKind) -> None:
    stored.proxy.break_next(kind, "GET", "*/a/object", times=1, skip=1)
    assert request(stored, "GET", "a/object") == (200, CONTENT)
    if isinstance(EXPECTED[kind], int):
        assert request(stored, "GET", "a/object")[0] == EXPECTED[kind]
    else:
        with pytest.raises(EXPECTED[kind]):
            request(stored, "GET", "a/object", timeout_s=timeout_s(kind))
    assert request(stored, "GET", "a/object") == (200, CONTENT)
    assert stored.proxy.faults == {kind: 1}


def test_wrong_bytes_have_the_original_length(stored: Bucket) -> None:
    stored.proxy.break_next("wrong_bytes", "GET")
    status, content = request(stored, "GET", "a/object")
    assert (status, len(content)) == (200, len(CONTENT)) and content != CONTENT


@pytest.mark.parametrize("kind", ["reset", "reset_body", "500", "stall", "stall_body"])
def test_a_broken_upload_stores_nothing(s3: Bucket, kind: FaultKind) -> None:
    s3.proxy.break_next(kind, "PUT", times=math.inf)
    with contextlib.suppress(ConnectionError, TimeoutError):
        assert request(s3, "PUT", "new", CONTENT, timeout_s=timeout_s(kind))[0] == 500
    assert s3.objects() == {}


def test_an_upload_whose_response_is_lost_is_stored(s3: Bucket) -> None:
    s3.proxy.break_next("answer_lost", "PUT")
    with pytest.raises(ConnectionError):
        request(s3, "PUT", "new", CONTENT)
    assert s3.objects() == {"new": CONTENT}


def test_limited_bandwidth_counts_every_byte(stored: Bucket) -> None:
    stored.proxy.bytes_per_s = 1e6
    request(stored, "GET", "a/object")
    assert stored.proxy.bytes_sent == len(CONTENT)
    assert stored.proxy._free_at_s > 0


def test_every_fault_is_tested() -> None:
    assert set(FAULT_KINDS) == {*EXPECTED, "wrong_bytes"}
