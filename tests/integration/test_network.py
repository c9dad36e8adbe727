"""A network that fails on the way to a bucket costs time; nothing is lost, or half there."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from botocore.config import Config

from asha_ray.errors import NotFoundError, StorageError
from asha_ray.storage import join, patience, s3, storage_of
from tests.proxy import Network, proxy

MIB = 1 << 20
BIG = 20 * MIB
"""Three parts."""
CUT_S = 3.0


@pytest.fixture
def network(s3_server: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """What lies between the storage and the server from now on."""
    with proxy(s3_server, seed=7) as network:
        monkeypatch.setenv("AWS_ENDPOINT_URL", network.endpoint)
        s3._client.cache_clear()
        yield network
        s3._client().close()
    s3._client.cache_clear()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds, and none of botocore's own attempts, which have longer ones."""
    once = Config(retries={"total_max_attempts": 1}, max_pool_connections=16)
    monkeypatch.setattr(s3, "_config", lambda: once)
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.01)


@pytest.fixture
def direct(s3_server: str) -> Any:
    """A client that does not go through the proxy."""
    return boto3.Session().client("s3", endpoint_url=s3_server)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("big") / "big.bin"
    path.write_bytes(np.random.default_rng(3).bytes(BIG + 77))
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def where(uri: str) -> dict[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


def is_there(direct: Any, uri: str) -> bool:
    found = direct.list_objects_v2(Bucket=where(uri)["Bucket"], Prefix=where(uri)["Key"])
    return found["KeyCount"] > 0


def stored(direct: Any, uri: str) -> str:
    return sha256(direct.get_object(**where(uri))["Body"].read())


@pytest.mark.parametrize("code", ["SlowDown", "ServiceUnavailable"])
@pytest.mark.usefixtures("quick")
def test_a_tenth_of_requests_refused_is_noticed_by_nobody(
    network: Network, bucket: str, tmp_path: Path, code: str
) -> None:
    storage = storage_of(bucket)
    network.refuse(0.1, code)

    def one(number: int) -> bytes:
        uri, path = f"{bucket}/many/{number:02d}", tmp_path / str(number)
        path.write_bytes(str(number).encode())
        if number % 2:
            storage.write(uri, path.read_bytes())
        else:
            storage.upload(path, uri)
        storage.download(uri, path)
        assert storage.read(uri) == path.read_bytes()
        return path.read_bytes()

    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(one, range(24)))
    names = [entry.uri for entry in storage.list(f"{bucket}/many")]

    assert got == [str(number).encode() for number in range(24)]
    assert names == [f"{bucket}/many/{number:02d}" for number in range(24)]
    assert network.num_refused >= 5


def test_refusals_with_the_usual_pauses(
    network: Network, bucket: str, big: Path, tmp_path: Path
) -> None:
    """botocore's attempts and ours together, as in real life."""
    network.refuse(0.3)
    uri = f"{bucket}/v.mp4"
    storage_of(uri).upload(big, uri)
    storage_of(uri).download(uri, tmp_path / "back")
    assert sha256((tmp_path / "back").read_bytes()) == sha256(big.read_bytes())
    assert network.num_refused >= 2


@pytest.mark.parametrize("how", ["reset", "swallow"])
def test_an_upload_survives_a_cut_and_is_never_half_there(
    network: Network, bucket: str, big: Path, direct: Any, how: Any
) -> None:
    uri = f"{bucket}/v.mp4"
    network.break_bodies("up", 3 * MIB, cut_s=CUT_S, how=how)
    errors: list[BaseException] = []

    def upload() -> None:
        try:
            storage_of(uri).upload(big, uri)
        except BaseException as error:  # noqa: BLE001 (told below)
            errors.append(error)

    thread = threading.Thread(target=upload)
    thread.start()
    assert network.cut_began.wait(30), "no part was on its way"
    half_there = is_there(direct, uri)
    thread.join(60)

    assert not errors
    assert not half_there
    assert stored(direct, uri) == sha256(big.read_bytes())
    assert network.num_broken >= 1


def test_a_download_survives_a_cut(
    network: Network, bucket: str, big: Path, direct: Any, tmp_path: Path
) -> None:
    uri = f"{bucket}/v.mp4"
    direct.upload_file(str(big), **where(uri))
    network.break_bodies("down", 3 * MIB, cut_s=CUT_S)
    storage_of(uri).download(uri, tmp_path / "back")
    assert network.cut_began.is_set()
    assert sha256((tmp_path / "back").read_bytes()) == sha256(big.read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == ["back"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("operation", ["upload", "write", "read", "download"])
def test_connections_that_break_in_mid_body(
    network: Network, bucket: str, big: Path, direct: Any, tmp_path: Path, operation: str
) -> None:
    uri, content = f"{bucket}/x", big.read_bytes()[: 2 * MIB]
    storage, source = storage_of(uri), tmp_path / "source"
    source.write_bytes(content)
    if operation in ("read", "download"):
        direct.put_object(**where(uri), Body=content)
    network.break_bodies("up" if operation in ("upload", "write") else "down", MIB, times=3)
    back = tmp_path / "back"
    {
        "upload": lambda: storage.upload(source, uri),
        "write": lambda: storage.write(uri, content),
        "read": lambda: back.write_bytes(storage.read(uri)),
        "download": lambda: storage.download(uri, back),
    }[operation]()
    assert network.num_broken == 3
    assert stored(direct, uri) == sha256(content)
    if back.exists():
        assert sha256(back.read_bytes()) == sha256(content)


def test_a_completion_whose_answer_is_lost(
    network: Network, bucket: str, big: Path, direct: Any
) -> None:
    """botocore asks again, and hears that the upload is not there any more."""
    uri = f"{bucket}/v.mp4"
    network.lose_answers(1, "POST", "uploadId=")
    storage_of(uri).upload(big, uri)
    assert network.num_broken == 1
    assert stored(direct, uri) == sha256(big.read_bytes())


@pytest.mark.usefixtures("quick")
def test_a_cut_that_lasts_is_told_and_leaves_nothing_that_a_list_shows(
    network: Network, bucket: str, big: Path, direct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{bucket}/v.mp4"
    monkeypatch.setattr(s3, "PATIENCE_S", 0.3)
    network.break_bodies("up", 3 * MIB, cut_s=600)
    with pytest.raises(StorageError, match=r"writing s3://.*v\.mp4: .*check"):
        storage_of(uri).upload(big, uri)
    assert not is_there(direct, uri)


def test_a_slow_network_is_slow_and_no_more(network: Network, bucket: str) -> None:
    network.delay(0.2)
    uri = f"{bucket}/x"
    storage_of(uri).write(uri, b"1")
    assert storage_of(uri).read(uri) == b"1"
    network.delay(0)
    with pytest.raises(NotFoundError):
        storage_of(uri).read(join(bucket, "nothing"))


class TestExpiredCredentials:
    @pytest.fixture(autouse=True)
    def file(
        self, network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[Path]:
        path = tmp_path / "credentials"
        path.write_text(CREDENTIALS.format("OLD"))
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
        s3._client.cache_clear()
        yield path
        network.expire()

    def test_are_told(self, network: Network, bucket: str, big: Path, direct: Any) -> None:
        uri = f"{bucket}/v.mp4"
        storage_of(uri).write(uri, b"old")
        network.expire("OLD")
        for call in (
            lambda: storage_of(uri).upload(big, uri),
            lambda: storage_of(uri).size(uri),
        ):
            with pytest.raises(StorageError, match=EXPIRED):
                call()
        assert stored(direct, uri) == sha256(b"old")

    def test_in_mid_upload_are_replaced_by_those_of_the_renewed_file(
        self, network: Network, bucket: str, big: Path, direct: Any, file: Path
    ) -> None:
        uri, begun = f"{bucket}/v.mp4", threading.Event()

        def expire(**_: object) -> None:
            if not begun.is_set():
                begun.set()
                file.write_text(CREDENTIALS.format("NEW"))
                network.expire("OLD")

        s3._client().meta.events.register("before-call.s3.CompleteMultipartUpload", expire)
        storage_of(uri).upload(big, uri)
        assert begun.is_set()
        assert network.num_refused >= 1
        assert stored(direct, uri) == sha256(big.read_bytes())


CREDENTIALS = (
    "[default]\naws_access_key_id = {}\naws_secret_access_key = s\naws_session_token = t\n"
)
EXPIRED = (
    r"ing s3://.*/v\.mp4: the AWS credentials have expired \(ExpiredToken\); renew them and run "
    "the same command again: what is finished is kept"
)
