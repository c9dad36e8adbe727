"""Credentials that expire in mid-render: others are taken if there are any, or it is told."""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from asha_ray.errors import StorageError
from asha_ray.storage import s3, storage_of
from tests.integration.storage.conftest import OPERATIONS, operations

URI = "s3://bucket/x"
CODES = (
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "TokenRefreshRequired",
    "InvalidToken",
)


@pytest.fixture
def credentials(monkeypatch, tmp_path):
    """Writes a credentials file with this key id."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    path = tmp_path / "credentials"

    def write(key_id, extra="aws_secret_access_key = s\naws_session_token = t\n"):
        path.write_text(f"[default]\naws_access_key_id = {key_id}\n{extra}")

    write("OLD")
    return write


@pytest.fixture
def farm(scripted, credentials, monkeypatch, tmp_path):
    """Starts a server for which OLD has expired, as the code says; returns the requests."""

    def start(code="ExpiredToken", expired="Credential=OLD/"):
        def script(handler):
            if expired in handler.headers["Authorization"]:
                return 400, f"<Code>{code}</Code><Message>The provided token …</Message>"
            return None

        seen = scripted(script)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        return seen

    return start


def test_what_to_do_is_said(farm, tmp_path, clock, subtests):
    """HEAD, which has no text, must not end in a bare 400."""
    farm()
    for operation, call in operations(storage_of(URI), URI, tmp_path).items():
        with subtests.test(operation=operation):
            with pytest.raises(StorageError) as caught:
                call()
            doing, _, what = str(caught.value).partition(" ")
            assert doing in ("reading", "writing", "listing", "deleting")
            assert what == (
                f"{URI}: the AWS credentials have expired (ExpiredToken); renew them and run the "
                "same command again: what is finished is kept"
            )
            assert clock.sleeps == [], "waiting renews nothing"


@pytest.mark.parametrize("code", CODES)
def test_every_word_for_it_is_known(farm, code):
    farm(code)
    with pytest.raises(StorageError, match=rf"credentials have expired \({code}\); renew them"):
        storage_of(URI).read(URI)


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o not in ("list", "unfinished")])
def test_renewed_credentials_are_found(farm, credentials, tmp_path, operation):
    farm()
    s3._client()
    credentials("NEW")
    operations(storage_of(URI), URI, tmp_path)[operation]()


def test_renewed_credentials_in_the_environment_are_found(farm, monkeypatch):
    farm()
    s3._client()
    monkeypatch.setitem(os.environ, "AWS_ACCESS_KEY_ID", "NEW")
    monkeypatch.setitem(os.environ, "AWS_SECRET_ACCESS_KEY", "s")
    assert storage_of(URI).read(URI) == b"content"


def test_a_renewal_is_looked_for_once(farm, credentials, monkeypatch):
    """Where a clock is wrong there may be new credentials each time, and all have expired."""
    seen = farm("RequestExpired", expired="Credential=")
    make = s3._new_session
    numbers = iter(range(100))

    def session_with_others():
        credentials(f"KEY{next(numbers)}")
        return make()

    monkeypatch.setattr(s3, "_new_session", session_with_others)
    with pytest.raises(StorageError, match="RequestExpired"):
        storage_of(URI).read(URI)
    assert len(seen) == 2


def test_credentials_that_are_gone_have_expired(farm, tmp_path):
    """The answer is what the server said, not that a file is missing."""
    farm()
    s3._client()
    (tmp_path / "credentials").unlink()
    with pytest.raises(StorageError, match="have expired"):
        storage_of(URI).read(URI)


def test_threads_renew_together(farm, credentials, monkeypatch):
    """Each would otherwise make a client of its own, and drop the others' new one."""
    farm()
    old = s3._client()
    credentials("NEW")
    made, make = [], s3._new_session

    def counted():
        made.append(1)
        return make()

    monkeypatch.setattr(s3, "_new_session", counted)
    together = Barrier(8)

    def read(_):
        together.wait(timeout=10)
        return storage_of(URI).read(URI)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(8))) == {b"content"}
    assert s3._client() is not old
    assert len(made) == 2, "one that looks, and one that becomes the client"


def test_an_upload_in_parts_goes_on_with_renewed_credentials(bucket, tmp_path, monkeypatch):
    """They expire most likely in what takes longest."""
    from botocore.exceptions import ClientError

    source, uri = tmp_path / "big", f"{bucket}/v.mp4"
    source.write_bytes(bytes(9 << 20))

    def expire(**_):
        answer = {
            "Error": {"Code": "ExpiredToken"},
            "ResponseMetadata": {"HTTPStatusCode": 400},
        }
        raise ClientError(answer, "UploadPart")

    s3._client().meta.events.register("before-call.s3.UploadPart", expire)
    with pytest.raises(StorageError, match=r"writing .*v\.mp4: the AWS credentials have expired"):
        storage_of(uri).upload(source, uri)
    assert storage_of(uri).size(uri) is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NEW")
    storage_of(uri).upload(source, uri)
    assert storage_of(uri).size(uri) == 9 << 20


def test_a_sign_on_that_has_ended_is_expired_too(bucket, monkeypatch):
    from botocore.exceptions import UnauthorizedSSOTokenError

    def expire(**_):
        raise UnauthorizedSSOTokenError

    s3._client().meta.events.register("before-call.s3.GetObject", expire)
    with pytest.raises(StorageError, match=r"credentials have expired .*renew them"):
        storage_of(bucket).read(f"{bucket}/x")
