"""A proxy before an S3 server that breaks what it is told to break, and counts everything."""

import contextlib
import select
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from time import monotonic
from types import TracebackType
from typing import Any, Literal, get_args
from urllib.parse import parse_qs, unquote, urlsplit

FaultKind = Literal[
    "500",
    "503",
    "reset",  # before any header; the server has not seen the request
    "answer_lost",  # the server has done what was asked, and the connection breaks before it can say so
    "reset_body",  # in the middle of the object, of the one that is sent or of the one that comes
    "truncate",  # the object ends in the middle, in an orderly way, after a header that promises all of it
    "stall",  # nothing is said until the client goes away
    "stall_body",  # the same, in the middle of the object
    "wrong_bytes",  # of the right length
    "gone",  # there is no such object
]
FAULT_KINDS: tuple[str, ...] = get_args(FaultKind)
_ERROR_CODES = {"500": (500, "InternalError"), "503": (503, "SlowDown"), "gone": (404, "NoSuchKey")}
_SLICE_BYTES = 64 << 10


@dataclass
class _Rule:
    kind: FaultKind
    method: str
    key: str
    skip: int
    times: float  # infinity: always
    done: int = 0


class FaultProxy:
    """Hands requests on to an S3 server, counts them, and breaks those that a rule names.

    `requests` counts by (method, "bucket/key"); a listing counts as ("LIST", "bucket/prefix"). `bytes_per_s` limits
    what all connections together get and send.
    """

    def __init__(self, upstream: str, bytes_per_s: float | None = None) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[str] = Counter()  # by kind, those that have happened
        self.bytes_sent = 0  # of objects and answers, to the clients
        self.bytes_per_s = bytes_per_s
        self.closing = Event()
        self.upstream = upstream.partition("://")[2]
        self._rules: list[_Rule] = []
        self._lock = Lock()
        self._free_at_s = 0.0
        proxy = self

        class Handler(_Handler):
            def __init__(self, *args: Any) -> None:
                self.proxy = proxy
                super().__init__(*args)

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def break_next(self, kind: FaultKind, method: str = "*", key: str = "*", times: float = 1, skip: int = 0) -> None:
        """Break the next `times` requests (`math.inf`: all) whose method and "bucket/key" fit the patterns, after
        letting `skip` of them pass."""
        assert kind in FAULT_KINDS, kind
        with self._lock:
            self._rules.append(_Rule(kind, method, key, skip, times))

    def heal(self) -> None:
        """Forget all rules, and what was counted."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()
            self.faults.clear()
            self.bytes_sent = 0

    def count(self, method: str = "*", key: str = "*") -> int:
        """Requests so far whose method and "bucket/key" fit the patterns."""
        with self._lock:
            return sum(
                n for (its, name), n in self.requests.items() if fnmatchcase(its, method) and fnmatchcase(name, key)
            )

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> "FaultProxy":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def arrived(self, method: str, key: str) -> FaultKind | None:
        """Count a request, and say what is to happen to it."""
        with self._lock:
            self.requests[method, key] += 1
            for rule in self._rules:
                if (
                    fnmatchcase(method, rule.method)
                    and fnmatchcase(key, rule.key)
                    and rule.done < rule.skip + rule.times
                ):
                    rule.done += 1
                    if rule.done > rule.skip:
                        self.faults[rule.kind] += 1
                        return rule.kind
                    return None
        return None

    def sending(self, num_bytes: int) -> None:
        """Count what is about to go to a client, and wait until there is room for it."""
        with self._lock:
            self.bytes_sent += num_bytes
        self.wait_for_bandwidth(num_bytes)

    def wait_for_bandwidth(self, num_bytes: int) -> None:
        """All connections share a line on which bytes go one after the other."""
        if not self.bytes_per_s:
            return
        with self._lock:
            begin_s = max(self._free_at_s, monotonic())
            self._free_at_s = begin_s + num_bytes / self.bytes_per_s
            wait_s = self._free_at_s - monotonic()
        self.closing.wait(max(wait_s, 0))


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away in the middle of an answer: that is what this is for."""


class _Broken(Exception):
    """The connection is to end here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultProxy

    def do_GET(self) -> None:
        with contextlib.suppress(_Broken, ConnectionError):
            self._handle()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _handle(self) -> None:
        fault = self.proxy.arrived(*self._what())
        sent = self._request_body()
        if fault in ("reset", "reset_body") and (fault == "reset" or sent):
            self._reset()  # of an object that is sent, half has been read
        if fault == "stall" or (fault == "stall_body" and sent):
            self._stall()
        if fault in _ERROR_CODES:
            self._say_error(fault)
            return
        body = b"".join(self._rest(sent))
        if fault == "wrong_bytes" and body:
            body = _spoilt(body)
        status, reason, headers, answer = self._ask(body)
        if fault == "answer_lost":
            self._reset()
        self._answer(status, reason, headers, answer, None if body else fault)

    def _what(self) -> tuple[str, str]:
        parts = urlsplit(self.path)
        key, query = unquote(parts.path).lstrip("/"), parse_qs(parts.query, keep_blank_values=True)
        if self.command == "GET" and ("list-type" in query or "prefix" in query):
            return "LIST", f"{key.rstrip('/')}/{query.get('prefix', [''])[0]}"
        return self.command, key

    def _request_body(self) -> list[bytes]:
        """The first half of what the client sends; all of it when it comes in chunks of unknown length."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            self._unread = 0
            return list(self._chunks())
        size = int(self.headers.get("Content-Length") or 0)
        self._unread = size - size // 2
        return [self._read(size // 2)] if size else []

    def _rest(self, first: list[bytes]) -> list[bytes]:
        return [*first, self._read(self._unread)] if self._unread else first

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = self.rfile.read(min(size, _SLICE_BYTES))
            if not part:
                raise _Broken
            self.proxy.wait_for_bandwidth(len(part))
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self._read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _ask(self, body: bytes) -> tuple[int, str, list[tuple[str, str]], bytes]:
        connection = HTTPConnection(self.proxy.upstream, timeout=60)
        hop = ("connection", "transfer-encoding", "expect", "content-length")
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in hop:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, HTTPException) as error:
            raise _Broken from error
        finally:
            connection.close()
        headers = [(name, value) for name, value in response.getheaders() if name.lower() not in hop]
        length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(answer))
        if length is not None and response.status not in (204, 304):
            headers.append(("Content-Length", length))
        return response.status, response.reason, headers, answer

    def _answer(
        self, status: int, reason: str, headers: list[tuple[str, str]], body: bytes, fault: FaultKind | None
    ) -> None:
        self.send_response_only(status, reason)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if fault == "wrong_bytes":
            body = _spoilt(body)
        in_the_middle = fault in ("reset_body", "truncate", "stall_body")
        self._send(body[: len(body) // 2] if in_the_middle else body)
        if fault == "reset_body":
            self._reset()
        if fault == "stall_body":
            self._stall()
        if fault == "truncate":
            self.close_connection = True

    def _send(self, body: bytes) -> None:
        for start in range(0, len(body), _SLICE_BYTES):
            part = body[start : start + _SLICE_BYTES]
            self.proxy.sending(len(part))
            self.wfile.write(part)

    def _say_error(self, status: str) -> None:
        self._rest([])
        number, code = _ERROR_CODES[status]
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>a fault on purpose</Message></Error>".encode()
        self.send_response_only(number)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()
        raise _Broken

    def _stall(self) -> None:
        self.close_connection = True
        while not self.proxy.closing.is_set():
            if select.select([self.connection], [], [], 0.05)[0] and not self.connection.recv(_SLICE_BYTES):
                break
        raise _Broken


def _spoilt(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes(byte ^ 0xFF for byte in body[middle : middle + 16]) + body[middle + 16 :]
