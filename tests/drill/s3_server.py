"""A local S3 server, and buckets behind a proxy that injects faults. Requires moto and boto3.

    with S3Server() as server, fresh_bucket(server) as bucket:
        os.environ.update(environment(bucket.proxy.endpoint))
        bucket.proxy.break_next("stall", method="GET", key="*.tar", times=2)

The server is a separate process, which exits when its parent does. The proxy runs in threads of the calling process.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

from tests.drill.fault_proxy import FaultProxy

REGION, KEY_ID, SECRET = "us-east-1", "testing", "testing"

_SERVER = Path(__file__).with_name("moto_process.py")


def environment(endpoint: str, timeout_s: float = 30.0) -> dict[str, str]:
    """Return the environment variables that direct every S3 library to `endpoint`."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "SR_STORE_TIMEOUT": f"{timeout_s:g}",
    }


class S3Server:
    """moto's S3 server in a separate process, which exits on `close` or when this process exits."""

    def __init__(self) -> None:
        command, pipe = [sys.executable, str(_SERVER)], subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self._process.stdout and self._process.stderr
        self.endpoint = self._process.stdout.readline().strip()
        if not self.endpoint:
            raise RuntimeError(f"the S3 server did not start: {self._process.stderr.read()[-2000:]}")
        Thread(target=self._process.stderr.read, daemon=True).start()  # a full pipe would block it

    def make_bucket(self, name: str) -> None:
        self._client.create_bucket(Bucket=name)

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=bucket, Key=key, Body=content)

    def get(self, bucket: str, key: str) -> bytes:
        return bytes(self._client.get_object(Bucket=bucket, Key=key)["Body"].read())

    def delete(self, bucket: str, key: str) -> None:
        self._client.delete_object(Bucket=bucket, Key=key)

    def keys(self, bucket: str, prefix: str = "") -> set[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {item["Key"] for page in pages for item in page.get("Contents", ())}

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """Return all objects below the prefix by key."""
        return {key: self.get(bucket, key) for key in sorted(self.keys(bucket, prefix))}

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> "S3Server":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @cached_property
    def _client(self) -> Any:
        import boto3  # slow, and needed only where a server is started

        keys = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET}
        return boto3.client("s3", endpoint_url=self.endpoint, region_name=REGION, **keys)


@dataclass(frozen=True)
class Bucket:
    """A bucket: the tested code connects to `proxy`; the test itself reads and writes through `server`."""

    name: str
    server: S3Server
    proxy: FaultProxy

    @property
    def address(self) -> str:
        return f"s3://{self.name}"

    def put_folder(self, folder: Path, prefix: str = "") -> str:
        """Upload every file of a local folder below the prefix. Return the address of the prefix."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = "/".join(part for part in (prefix, path.relative_to(folder).as_posix()) if part)
                self.server.put(self.name, key, path.read_bytes())
        return f"{self.address}/{prefix}" if prefix else self.address

    def download(self, prefix: str, folder: Path) -> None:
        """Save every object below the prefix to a local folder."""
        for name, content in self.objects(prefix).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Return every object below the prefix by its key relative to the prefix."""
        start = f"{prefix}/" if prefix else ""
        return {key[len(start) :]: content for key, content in self.server.objects(self.name, start).items()}

    def keys(self, prefix: str = "") -> set[str]:
        start = f"{prefix}/" if prefix else ""
        return {key[len(start) :] for key in self.server.keys(self.name, start)}


@contextlib.contextmanager
def fresh_bucket(server: S3Server) -> Iterator[Bucket]:
    """Create a bucket with a separate proxy."""
    name = f"bucket-{uuid4().hex[:12]}"
    server.make_bucket(name)
    with contextlib.closing(FaultProxy(server.endpoint)) as proxy:
        yield Bucket(name, server, proxy)


def forget_stores() -> None:
    """Make fsspec connect to S3 again: cached file systems keep their endpoint and connections."""
    import s3fs

    _parse_service_models_once()
    s3fs.S3FileSystem.clear_instance_cache()


@cache
def _parse_service_models_once() -> None:
    """Share the loader of botocore's large JSON files between its sessions: each new connection has its own session."""
    import botocore.session

    botocore.session.create_loader = cache(botocore.session.create_loader)
