"""Driven by tuspy, a client that knows tus and nothing of Lathe."""

import hashlib
import io
import random

import httpx
import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed

Headers = dict[str, str]
CONTENT = random.Random(7).randbytes(1_000_003)  # noqa: S311 - a test's choice
DATASET = {"kind": "dataset", "filename": "cal.npz", "filetype": "application/x-npz"}


@pytest.fixture
def tus(service_url: str, writer: Headers, monkeypatch: pytest.MonkeyPatch) -> TusClient:
    monkeypatch.setenv("NO_PROXY", "*")  # requests would ask a proxy for this machine
    return TusClient(f"{service_url}/v1/uploads", headers=dict(writer))


@pytest.mark.parametrize("checked", [False, True], ids=["plain", "checksums"])
@pytest.mark.parametrize("chunk_bytes", [len(CONTENT), 300_000], ids=["one-piece", "chunks"])
def test_an_upload(tus: TusClient, service_url: str, writer: Headers, checked: bool, chunk_bytes: int) -> None:
    uploader = tus.uploader(
        file_stream=io.BytesIO(CONTENT), chunk_size=chunk_bytes, metadata=DATASET, upload_checksum=checked
    )
    uploader.upload()
    result = uploader.request.response_headers["upload-result"]
    shown = httpx.get(service_url + result, headers=writer, trust_env=False).json()
    assert shown["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert (shown["name"], shown["media_type"]) == ("cal.npz", "application/x-npz")


def test_an_upload_that_another_process_goes_on_with(tus: TusClient, service_url: str, writer: Headers) -> None:
    begun = tus.uploader(file_stream=io.BytesIO(CONTENT), chunk_size=100_000, metadata=DATASET)
    begun.upload(stop_at=400_000)
    later = tus.uploader(file_stream=io.BytesIO(CONTENT), chunk_size=500_000, url=begun.url)
    assert later.offset == 400_000
    # Behind its back: it finds itself refused, asks where the upload stands, and goes on from there.
    tus.uploader(file_stream=io.BytesIO(CONTENT), chunk_size=50_000, url=begun.url).upload_chunk()
    later.retries, later.retry_delay = 1, 0
    later.upload()
    result = later.request.response_headers["upload-result"]
    shown = httpx.get(service_url + result, headers=writer, trust_env=False).json()
    assert shown["sha256"] == hashlib.sha256(CONTENT).hexdigest()


def test_refusals_reach_it(tus: TusClient) -> None:
    with pytest.raises(TusCommunicationError) as refused:
        tus.uploader(file_stream=io.BytesIO(CONTENT), metadata={"kind": "poem", "name": "x"}).upload()
    assert refused.value.status_code == 422
    done = tus.uploader(file_stream=io.BytesIO(CONTENT), metadata=DATASET)
    done.upload()
    done.offset = 5
    with pytest.raises(TusUploadFailed) as conflict:
        done.upload_chunk()
    assert conflict.value.status_code == 409
