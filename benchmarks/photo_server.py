"""Serve a folder over HTTP on a free port of 127.0.0.1, which is printed, until terminated.

python -m benchmarks.photo_server DIR
"""

import functools
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Log nothing: a line per photo would cost more than some photos."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # default 5; further connections would retry after a second


def main() -> None:
    """Serve the folder passed on the command line."""
    with _Server(("127.0.0.1", 0), functools.partial(_QuietHandler, directory=sys.argv[1])) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
