"""The part of the Hugging Face Hub's HTTP interface that reads and uploads one data set, `user/set`, from a folder."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlparse

REPOSITORY = "user/set"
_COMMIT = "0" * 40


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve the folder as the data set's files, and yield the address for `HF_ENDPOINT`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, folder)) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, folder: Path, *args: Any) -> None:
        self.folder = folder
        super().__init__(*args)

    def log_message(self, *args: object) -> None:
        pass

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlparse(self.path).path)
        api, files = f"/api/datasets/{REPOSITORY}", f"/datasets/{REPOSITORY}/resolve/"
        if path.startswith(files):
            self._send_file(self.folder / path.removeprefix(files).partition("/")[2])
        elif path == "/api/repos/create":
            self._send_json({"url": REPOSITORY, "name": REPOSITORY, "id": "1"})
        elif path == "/api/validate-yaml":
            self._send_json({"errors": [], "warnings": []})
        elif path == api or path.startswith(f"{api}/revision/"):
            siblings = [{"rfilename": str(file.relative_to(self.folder))} for file in self.folder.rglob("*.*")]
            self._send_json({"id": REPOSITORY, "sha": _COMMIT, "private": False, "tags": [], "siblings": siblings})
        elif path.startswith(f"{api}/tree/"):
            self._send_tree(path.removeprefix(f"{api}/tree/").partition("/")[2])
        elif path.startswith(f"{api}/preupload/"):
            names = [file["path"] for file in json.loads(body)["files"]]
            self._send_json({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif path.startswith(f"{api}/commit/"):
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._send(404)

    do_GET = do_HEAD = do_POST = handle_any  # noqa: N815

    def _send_tree(self, path: str) -> None:
        if not (self.folder / path).is_dir():
            self._send(404, X_Error_Code="EntryNotFound")
            return
        self._send_json(
            [
                {"type": "directory" if file.is_dir() else "file", "oid": _COMMIT, "size": file.stat().st_size}
                | {"path": str(file.relative_to(self.folder))}
                for file in sorted((self.folder / path).iterdir())
            ]
        )

    def _send_file(self, file: Path) -> None:
        if not file.is_file():
            self._send(404, X_Error_Code="EntryNotFound")
            return
        data = file.read_bytes()
        headers = {"ETag": f'"{file.name}"', "X_Repo_Commit": _COMMIT}
        wanted = self.headers.get("Range")
        if not wanted:
            self._send(200, data, **headers)
            return
        first, last = wanted.removeprefix("bytes=").split("-")
        part = data[int(first) : int(last) + 1 if last else None]
        end = int(first) + len(part) - 1
        self._send(206, part, Content_Range=f"bytes {first}-{end}/{len(data)}", **headers)

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["key"] == "file":
                path = self.folder / line["value"]["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(line["value"]["content"]))
        self._send_json({"commitUrl": f"/datasets/{REPOSITORY}/commit/{_COMMIT}", "commitOid": _COMMIT})

    def _send_json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), Content_Type="application/json")

    def _send(self, code: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
