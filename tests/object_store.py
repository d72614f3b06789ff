"""An S3 of the tests' own: moto's server on a loopback port, spoken to over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from s3fs import S3FileSystem


@dataclass(frozen=True)
class ObjectStore:
    """A running S3 and the account that may use it."""

    address: str

    @property
    def options(self) -> dict[str, Any]:
        """What a file system of fsspec's is opened with."""
        return {"key": "tests", "secret": "tests", "endpoint_url": self.address}

    def bucket(self) -> str:
        """The URL of a new bucket."""
        name = f"bucket-{uuid4().hex[:12]}"
        self.files().mkdir(name)
        return f"s3://{name}"

    def files(self) -> S3FileSystem:
        """The store as somebody else sees it."""
        return S3FileSystem(**self.options, use_listings_cache=False)


@contextmanager
def running_object_store() -> Iterator[ObjectStore]:
    """An empty one, for as long as the block lasts."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield ObjectStore("http://{}:{}".format(*server.get_host_and_port()))
    finally:
        server.stop()
