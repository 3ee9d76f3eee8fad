"""A proxy in front of an S3 server that injects faults and counts requests."""

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
from typing import Any, Literal, get_args
from urllib.parse import parse_qs, unquote, urlsplit

FaultKind = Literal[
    "500",
    "503",
    "reset",  # the connection is reset, and the server does not receive the request
    "answer_lost",  # the server handles the request, but the connection is reset before its response
    "reset_body",  # the connection is reset halfway through the uploaded or downloaded object
    "truncate",  # the connection is closed halfway through the object; Content-Length is that of all of it
    "stall",  # no response until the client disconnects
    "stall_body",  # the same, halfway through the object
    "wrong_bytes",  # different content of the same length
    "gone",  # 404
]
FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
READ_FAULTS = tuple(kind for kind in FAULT_KINDS if kind != "gone")
WRITE_FAULTS = tuple(kind for kind in READ_FAULTS if kind not in ("truncate", "wrong_bytes"))
_ERROR_CODES = {"500": (500, "InternalError"), "503": (503, "SlowDown"), "gone": (404, "NoSuchKey")}
_SLICE_BYTES = 64 << 10


@dataclass
class _Rule:
    kind: FaultKind
    method: str
    key: str
    skip: int
    times: float  # math.inf: always
    matched: int = 0


class FaultProxy:
    """Forward requests to an S3 server, count them, and inject faults into those that match a rule.

    `requests` counts by (method, "bucket/key"); a listing counts as ("LIST", "bucket/prefix"). `bytes_per_s` limits
    the bandwidth of all connections together, in both directions.
    """

    def __init__(self, upstream: str, bytes_per_s: float | None = None) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[str] = Counter()  # injected so far, by kind
        self.bytes_sent = 0  # response bodies sent to clients
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
        """Inject a fault into the next `times` requests (`math.inf`: all) whose method and "bucket/key" match.

        `skip` such requests are forwarded first.
        """
        assert kind in FAULT_KINDS, kind
        with self._lock:
            self._rules.append(_Rule(kind, method, key, skip, times))

    def heal(self) -> None:
        """Remove all rules and reset all counts."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()
            self.faults.clear()
            self.bytes_sent = 0

    def count(self, method: str = "*", key: str = "*") -> int:
        """Return the number of requests so far whose method and "bucket/key" match the patterns."""
        with self._lock:
            return sum(number for request, number in self.requests.items() if _matches(request, method, key))

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def fault_for(self, method: str, key: str) -> FaultKind | None:
        """Count a request, and return the fault to inject into it."""
        with self._lock:
            self.requests[method, key] += 1
            for rule in self._rules:
                if rule.matched < rule.skip + rule.times and _matches((method, key), rule.method, rule.key):
                    rule.matched += 1
                    if rule.matched > rule.skip:
                        self.faults[rule.kind] += 1
                        return rule.kind
                    return None
        return None

    def before_sending(self, num_bytes: int) -> None:
        """Count bytes that are about to be sent to a client, and wait for bandwidth."""
        with self._lock:
            self.bytes_sent += num_bytes
        self.wait_for_bandwidth(num_bytes)

    def wait_for_bandwidth(self, num_bytes: int) -> None:
        """Wait until the bytes, after those of all other connections, have passed at `bytes_per_s`."""
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
        """Ignore clients that disconnect during a response, as they do after a fault."""


class _Disconnect(Exception):
    """Close the connection without a further response."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultProxy

    def do_GET(self) -> None:
        with contextlib.suppress(_Disconnect, ConnectionError):
            self._handle()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def _handle(self) -> None:
        fault = self.proxy.fault_for(*self._request())
        sent = self._first_half()
        if fault == "reset" or (fault == "reset_body" and sent):
            self._reset()  # half of an uploaded object has been read
        if fault == "stall" or (fault == "stall_body" and sent):
            self._stall()
        if fault in _ERROR_CODES:
            self._send_error(fault)
            return
        body = sent + self._read(self._unread)
        if fault == "wrong_bytes" and body:
            body = _corrupted(body)
        status, reason, headers, content = self._forward(body)
        if fault == "answer_lost":
            self._reset()
        self._respond(status, reason, headers, content, None if body else fault)

    def _request(self) -> tuple[str, str]:
        parts = urlsplit(self.path)
        key, query = unquote(parts.path).lstrip("/"), parse_qs(parts.query, keep_blank_values=True)
        if self.command == "GET" and ("list-type" in query or "prefix" in query):
            return "LIST", f"{key.rstrip('/')}/{query.get('prefix', [''])[0]}"
        return self.command, key

    def _first_half(self) -> bytes:
        """Read the first half of the request body, or all of it if its transfer encoding is chunked."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            self._unread = 0
            return b"".join(self._chunks())
        size = int(self.headers.get("Content-Length") or 0)
        self._unread = size // 2
        return self._read(size - self._unread)

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = self.rfile.read(min(size, _SLICE_BYTES))
            if not part:
                raise _Disconnect
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

    def _forward(self, body: bytes) -> tuple[int, str, list[tuple[str, str]], bytes]:
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
            content = response.read()
        except (OSError, HTTPException) as error:
            raise _Disconnect from error
        finally:
            connection.close()
        headers = [(name, value) for name, value in response.getheaders() if name.lower() not in hop]
        length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        if length is not None and response.status not in (204, 304):
            headers.append(("Content-Length", length))
        return response.status, response.reason, headers, content

    def _respond(
        self, status: int, reason: str | None, headers: list[tuple[str, str]], body: bytes, fault: FaultKind | None
    ) -> None:
        self.send_response_only(status, reason)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if fault == "wrong_bytes":
            body = _corrupted(body)
        is_cut = fault in ("reset_body", "truncate", "stall_body")
        self._send(body[: len(body) // 2] if is_cut else body)
        if fault == "reset_body":
            self._reset()
        if fault == "stall_body":
            self._stall()
        if fault == "truncate":
            self.close_connection = True

    def _send(self, body: bytes) -> None:
        for start in range(0, len(body), _SLICE_BYTES):
            part = body[start : start + _SLICE_BYTES]
            self.proxy.before_sending(len(part))
            self.wfile.write(part)

    def _send_error(self, kind: str) -> None:
        self._read(self._unread)
        number, code = _ERROR_CODES[kind]
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected fault</Message></Error>".encode()
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        self._respond(number, None, headers, b"" if self.command == "HEAD" else body, None)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()
        raise _Disconnect

    def _stall(self) -> None:
        self.close_connection = True
        while not self.proxy.closing.is_set():
            if select.select([self.connection], [], [], 0.05)[0] and not self.connection.recv(_SLICE_BYTES):
                break
        raise _Disconnect


def _corrupted(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes(byte ^ 0xFF for byte in body[middle : middle + 16]) + body[middle + 16 :]


def _matches(request: tuple[str, str], method: str, key: str) -> bool:
    return fnmatchcase(request[0], method) and fnmatchcase(request[1], key)
