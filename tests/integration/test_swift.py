"""The same against a real S3 store, which checks credentials and checksums and keeps what it has.

moto, the fast default, takes any credentials and forgets everything.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import boto3
import pytest

import asha_ray
from asha_ray.errors import NotFoundError, StorageError, UnwritableError
from asha_ray.storage import Entry, Unfinished, s3, storage_of
from tests.swift import CREDENTIALS, swift

BUCKET = "s3://asha-tests"
PART_BYTES = 8 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("swift") / "store"


@pytest.fixture(scope="module")
def endpoint(folder: Path) -> Iterator[str]:
    with swift(folder) as endpoint:
        yield endpoint


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket; the AWS environment names its server."""
    use(endpoint, monkeypatch)
    with suppress(s3._client().exceptions.BucketAlreadyOwnedByYou):
        s3._client().create_bucket(Bucket=BUCKET.removeprefix("s3://"))
    yield BUCKET
    s3._client.cache_clear()


def use(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, credentials: tuple[str, str] = CREDENTIALS
) -> None:
    for name, value in zip(
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), credentials, strict=True
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    s3._client.cache_clear()


@pytest.mark.parametrize("name", ["plain.json", "räume und 'mehr'/a%20b#c.json", '音/b"q".json'])
def test_what_is_written_is_read(store: str, name: str) -> None:
    uri = f"{store}/written/{name}"
    storage = storage_of(uri)
    assert storage.size(uri) is None
    storage.write(uri, b"one")
    storage.write(uri, b"other")
    assert (storage.read(uri), storage.size(uri)) == (b"other", 5)
    assert Entry(uri, 5) in list(storage.list(f"{store}/written"))
    storage.delete(uri)
    storage.delete(uri)
    assert storage.size(uri) is None
    with pytest.raises(NotFoundError, match="reading s3://"):
        storage.read(uri)


@pytest.mark.parametrize("num_bytes", [0, 1, PART_BYTES, 2 * PART_BYTES + 77])
def test_files_go_up_and_come_down(store: str, tmp_path: Path, num_bytes: int) -> None:
    """The larger ones in parts."""
    data = (b"asha-ray" * (num_bytes // 8 + 1))[:num_bytes]
    (tmp_path / "up").write_bytes(data)
    uri = f"{store}/files/{num_bytes}"
    storage_of(uri).upload(tmp_path / "up", uri)
    storage_of(uri).download(uri, tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == data
    assert storage_of(uri).size(uri) == num_bytes


def test_an_upload_that_nobody_completed_is_found_and_ended(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, uri = store.removeprefix("s3://"), f"{store}/half/v 1.mp4"
    storage, client = storage_of(store), s3._client()
    begun = client.create_multipart_upload(Bucket=bucket, Key="half/v 1.mp4")["UploadId"]
    client.upload_part(
        Bucket=bucket, Key="half/v 1.mp4", UploadId=begun, PartNumber=1, Body=bytes(1000)
    )
    assert list(storage.unfinished(f"{store}/half")) == [], "it is a second old"
    monkeypatch.setattr(s3, "UNFINISHED_AGE", timedelta(hours=-1))
    assert list(storage.unfinished(f"{store}/files")) == []
    [left] = storage.unfinished(f"{store}/half")
    assert left == Unfinished(uri, 1000, begun)
    storage.discard(left)
    storage.discard(left)
    assert list(storage.unfinished(f"{store}/half")) == []


def test_many_objects_are_listed_in_order(store: str) -> None:
    storage = storage_of(store)
    for number in range(30):
        storage.write(f"{store}/many/{number:03d}", b"x" * number)
    found = list(storage.list(f"{store}/many"))
    assert found == [Entry(f"{store}/many/{number:03d}", number) for number in range(30)]


def test_wrong_credentials_are_refused_and_never_shown(
    store: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(endpoint, monkeypatch, ("test:tester", "not-the-secret"))
    with pytest.raises(StorageError) as refused:
        storage_of(store).write(f"{store}/x", b"")
    with pytest.raises(UnwritableError):
        storage_of(store).check_writable(f"{store}/x")
    assert "credentials" in str(refused.value)
    assert "not-the-secret" not in str(refused.value)


def test_a_missing_bucket_is_told(store: str) -> None:
    with pytest.raises(UnwritableError, match="no such bucket"):
        storage_of(store).check_writable("s3://no-such-bucket-here/v.mp4")


def test_a_render_is_resumed_after_the_server_came_back(
    model: Path, track: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storage is the truth: what was rendered before it went away is not rendered again."""
    out = f"{BUCKET}/videos/v.mp4"
    options = {"model": model, "executor": "serial", "chunk_seconds": 0.5}
    with swift(tmp_path / "store") as endpoint:
        use(endpoint, monkeypatch)
        s3._client().create_bucket(Bucket=BUCKET.removeprefix("s3://"))
        first = asha_ray.render(track, out=out, duration=1, **options)
    with swift(tmp_path / "store") as endpoint:
        use(endpoint, monkeypatch)
        again = asha_ray.render(track, out=out, **options)
        found = asha_ray.inspect(out)
    s3._client.cache_clear()
    assert (first.chunks, first.reused_chunks) == (2, 0)
    assert again.reused_chunks == 2
    assert found.problems == ()
    assert found.report.frames == again.frames
