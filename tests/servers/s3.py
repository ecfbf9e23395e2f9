"""An S3 server on this machine, for what rests on object stores."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import fsspec
import pytest


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """URL of a bucket; this process and those that it starts find it."""
    from moto.server import ThreadedMotoServer

    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"features-{uuid.uuid4().hex[:8]}"  # what one server has, the next one of this process has too
    fsspec.filesystem("s3").mkdir(bucket)
    yield f"s3://{bucket}"
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()
    patch.undo()
