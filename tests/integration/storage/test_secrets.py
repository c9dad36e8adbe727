"""No error shows credentials, whoever planted them: a path, an address, a server or a library."""

import socket
import traceback
from types import SimpleNamespace

import pytest
from botocore import awsrequest

from asha_ray.errors import AshaError, SpecError, StorageError
from asha_ray.storage import Unfinished, base, join, local, s3, storage_of
from asha_ray.storage.base import redacted, safe_name
from tests.integration.storage.conftest import KEY_ID, SECRET, operations

PASSWORD, TOKEN, SIGNATURE = "pass-w0rd", "IQoJtoken/never+shown==", "5e1f7d0c"
USER = f"user:{PASSWORD}@"
SECRETS = (KEY_ID, SECRET, PASSWORD, TOKEN, SIGNATURE)
SIGNED = (
    f"X-Amz-Credential={KEY_ID}%2F2026&X-Amz-Security-Token={TOKEN}&X-Amz-Signature={SIGNATURE}"
)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(s3, "PATIENCE_S", 0)
    monkeypatch.setattr(s3, "FIRST_PATIENCE_S", 0)


def told(call) -> str:
    """The error's text and its traceback's, in which no secret is."""
    with pytest.raises(AshaError) as caught:
        call()
    everything = "".join(traceback.format_exception(caught.value))
    for secret in SECRETS:
        assert secret not in everything
    return str(caught.value)


PATHS = {
    "aws": f"s3://{KEY_ID}:{SECRET}@bucket/x",
    "digits": f"s3://user:1234/{SECRET}@bucket/x",
    "user": f"s3://{USER}bucket/x",
    "presigned": f"s3://bucket/x?{SIGNED}",
    "old presigned": f"s3://bucket/x?AWSAccessKeyId={KEY_ID}&Signature={SIGNATURE}",
    "https": f"https://{USER}host:9000/x?{SIGNED}",
    "other scheme": f"hdfs://{USER}host/x",
    "with a space": f" https://{USER}host/x",
}


@pytest.mark.parametrize("kind", PATHS)
def test_a_path_with_credentials_is_refused_and_not_shown(kind):
    """It would come into manifests and logs."""
    text = told(lambda: storage_of(PATHS[kind]))
    assert "it holds credentials or a signature; give a plain path" in text
    assert "***" in text
    assert text.startswith("path ")


def test_so_it_is_by_every_call_to_a_bucket(aws, tmp_path, subtests):
    aws("http://127.0.0.1:9")
    for kind, path in PATHS.items():
        if path.startswith("s3:"):
            calls = operations(storage_of("s3://bucket"), path, tmp_path)
            for operation, call in calls.items():
                with subtests.test(kind=kind, operation=operation):
                    told(call)


def test_a_local_path_with_credentials_is_not_shown(tmp_path, subtests):
    """Nothing leads there now; but a path is whatever a person pasted."""
    (tmp_path / "file").write_bytes(b"")
    uri = f"{tmp_path}/file/://{USER}x?{SIGNED}"
    calls = operations(local.LocalStorage(), uri, tmp_path)
    for operation in (
        "read",
        "write",
        "upload",
        "download",
        "local_copy",
        "delete",
        "check_writable",
    ):
        with subtests.test(operation=operation):
            with pytest.raises(StorageError) as caught:
                calls[operation]()
            for secret in SECRETS:
                assert secret not in str(caught.value)
            assert "***" in str(caught.value)


class TestEndpoint:
    """`AWS_ENDPOINT_URL=https://user:password@server`: botocore repeats it in its errors."""

    def test_that_is_down(self, aws, tmp_path, subtests):
        aws(f"http://{USER}127.0.0.1:9")
        for operation, call in operations(storage_of("s3://b/x"), "s3://b/x", tmp_path).items():
            with subtests.test(operation=operation):
                told(call)

    def test_that_never_answers(self, aws, tmp_path, monkeypatch, subtests):
        from botocore.config import Config

        soon = Config(retries={"total_max_attempts": 1}, read_timeout=0.05)
        # botocore waits a second for a server's leave to send a file, whatever its settings say.
        wait = awsrequest.urllib3.util.wait_for_read
        hasty = SimpleNamespace(
            util=SimpleNamespace(wait_for_read=lambda sock, _: wait(sock, 0.05))
        )
        monkeypatch.setattr(awsrequest, "urllib3", hasty)
        with socket.create_server(("127.0.0.1", 0)) as server:
            aws(f"http://{USER}127.0.0.1:{server.getsockname()[1]}")
            monkeypatch.setattr(s3, "_config", lambda: soon)
            for operation, call in operations(storage_of("s3://b/x"), "s3://b/x", tmp_path).items():
                with subtests.test(operation=operation):
                    assert "***@127.0.0.1" in told(call)

    def test_that_is_no_address(self, aws, tmp_path, subtests):
        aws(f"{USER}127.0.0.1:9")
        for operation, call in operations(storage_of("s3://b/x"), "s3://b/x", tmp_path).items():
            with subtests.test(operation=operation):
                assert "check AWS_ENDPOINT_URL" in told(call)


ECHOES = {
    "a refusal": (403, "InvalidAccessKeyId"),
    "a server's own error": (500, "InternalError"),
    "another error": (400, "InvalidArgument"),
}


@pytest.mark.parametrize("kind", ECHOES)
def test_a_server_that_repeats_what_it_was_sent(scripted, monkeypatch, tmp_path, subtests, kind):
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    status, code = ECHOES[kind]
    message = f"{KEY_ID} {SECRET} {TOKEN} at http://{USER}host/x?{SIGNED.replace('&', '&amp;')}"
    scripted(lambda _: (status, f"<Code>{code}</Code><Message>{message}</Message>"))
    for operation, call in operations(storage_of("s3://b/x"), "s3://b/x", tmp_path).items():
        with subtests.test(operation=operation):
            assert "s3://b/x: " in told(call)


@pytest.mark.parametrize("name", ["AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"])
def test_a_library_that_repeats_what_it_shall_send(scripted, monkeypatch, clock, name):
    """A token that was pasted with a line's end in it is no header, and http.client shows it."""
    secret = {"AWS_SESSION_TOKEN": TOKEN, "AWS_ACCESS_KEY_ID": KEY_ID}[name]
    monkeypatch.setenv(name, f"{secret}\nmore")
    scripted(lambda _: None)
    text = told(lambda: storage_of("s3://b/x").read("s3://b/x"))
    assert "nvalid header" in text
    assert clock.sleeps == [], "it does not pass"


def test_names_from_files_are_not_shown_whole():
    told(lambda: safe_name(f"https://{USER}x", "chunk id"))
    told(lambda: join("s3://b", f"../https://{USER}x"))
    told(lambda: join(f"s3://{USER}b", ".."))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("reading s3://b/k@2x.png: no", "reading s3://b/k@2x.png: no"),
        ("http://host:9000/a@b/c", "http://host:9000/a@b/c"),
        ("s3://b/who?.txt", "s3://b/who?.txt"),
        ("s3://b/a=b&c=d", "s3://b/a=b&c=d"),
        ("/home/me@home/a:b@c.wav", "/home/me@home/a:b@c.wav"),
        ("s3://b/k: mail me@home", "s3://b/k: mail me@home"),
        ("http://u@host/x", "http://***@host/x"),
        ("http://u:p@host:1/x", "http://***@host:1/x"),
        ("http://u:p/q@host", "http://***@host"),
        ("two http://u:p@a and http://v:q@b", "two http://***@a and http://***@b"),
        ("s3://a:12/b@c/d", "s3://***@c/d"),
        ("x?X-Amz-Signature=ab, then", "x?X-Amz-Signature=***, then"),
        ("x?a=1&sig=ab%3D&b=2", "x?a=1&sig=***&b=2"),
        ("x%3FX-Amz-Signature%3Dab", "x%3FX-Amz-Signature%3D***"),
        ("password=abc'", "password=***'"),
    ],
)
def test_only_secrets_are_hidden(text, shown):
    assert redacted(text) == shown


def test_given_secrets_are_hidden_wherever_they_are():
    assert redacted("b'first\\nmore' and first", "first\nmore", "", " ", "s") == (
        "b'***\\n***' and ***"
    )


def test_a_file_may_be_called_anything_on_a_disk():
    """A song called `secret=love.wav` is no secret."""
    storage_of("/music/secret=love.wav")
    storage_of("s3://bucket/who?.wav")
    with pytest.raises(SpecError, match="no file has such a name"):
        storage_of("a\0b")
    assert isinstance(Unfinished("x", 0), base.Unfinished)
