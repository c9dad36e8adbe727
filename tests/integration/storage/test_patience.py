"""A server that is busy, broken or gone for a while, or a full disk, costs time and no work."""

import errno
import shutil
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from asha_ray.errors import StorageError, UnwritableError
from asha_ray.storage import patience, s3, storage_of
from tests.integration.storage.conftest import operations

URI = "s3://bucket/x"
WAYS = {
    "500": (500, "<Code>InternalError</Code>"),
    "503": (503, "<Code>SlowDown</Code>"),
    "429": (429, "<Code>SlowDown</Code>"),
    "400": (400, "<Code>RequestTimeout</Code>"),
    "reset": (0, ""),
}


@pytest.fixture
def failing(scripted):
    """Makes the server fail so many times, in one way, before it answers."""

    def fail(times, way):
        seen = scripted(lambda _: WAYS[way] if len(seen) <= times else None)
        return seen

    return fail


class TestServer:
    @pytest.mark.parametrize("way", ["500", "503", "429", "reset"])
    def test_what_passes_is_waited_for(self, failing, clock, tmp_path, subtests, way):
        seen = failing(3, way)
        calls = operations(storage_of(URI), URI, tmp_path)
        for operation in ("read", "write", "upload", "download", "delete", "size"):
            seen.clear()
            clock.sleeps.clear()
            with subtests.test(operation=operation):
                calls[operation]()
                assert len(seen) >= 4
                assert len(clock.sleeps) == 3

    def test_half_a_request_is_sent_again(self, failing):
        """S3 calls that the client's fault."""
        seen = failing(3, "400")
        storage_of(URI).write(URI, b"1")
        assert len(seen) == 4

    @pytest.mark.parametrize("answered", [True, False])
    def test_patience_ends_with_a_clear_error(self, failing, clock, monkeypatch, answered):
        seen = failing(10**6, "503")
        monkeypatch.setattr(
            s3, "_HAS_ANSWERED", type("Event", (), {"is_set": lambda _: answered})()
        )
        with pytest.raises(StorageError, match=r"reading s3://bucket/x: S3 answered SlowDown"):
            storage_of(URI).read(URI)
        longest = s3.PATIENCE_S if answered else s3.FIRST_PATIENCE_S
        assert longest - patience.LONGEST_PAUSE_S <= clock.now <= longest
        assert len(seen) == len(clock.sleeps) + 1

    def test_a_refusal_is_not_tried_again(self, scripted, clock):
        """Waiting changes no permissions."""
        seen = scripted(lambda _: (403, "<Code>AccessDenied</Code>"))
        with pytest.raises(StorageError, match="access is denied"):
            storage_of(URI).read(URI)
        assert (len(seen), clock.sleeps) == (1, [])

    def test_an_upload_that_was_cleared_away_begins_anew(self, bucket, tmp_path, clock):
        """Its completion may also have been done and the answer lost."""
        source, uri = tmp_path / "big", f"{bucket}/v.mp4"
        source.write_bytes(bytes(9 << 20))
        missed = []

        def miss_first(**_):
            if not missed:
                missed.append(1)
                answer = {  # S3's; moto has an error of its own for it
                    "Error": {"Code": "NoSuchUpload"},
                    "ResponseMetadata": {"HTTPStatusCode": 404},
                }
                raise ClientError(answer, "CompleteMultipartUpload")

        s3._client().meta.events.register("before-call.s3.CompleteMultipartUpload", miss_first)
        storage_of(uri).upload(source, uri)
        assert missed
        assert storage_of(uri).size(uri) == 9 << 20
        assert len(clock.sleeps) == 1

    def test_what_takes_long_has_a_second_chance(self, clock):
        """Patience that ran from the beginning would be over before an hour's upload broke off."""
        attempts = []

        def action():
            attempts.append(clock.now)
            clock.now += 3600
            if len(attempts) == 1:
                raise StorageError("reset")
            return "done"

        assert patience.patiently(action, lambda _: 90) == "done"


class TestFullDisk:
    """Another render ends, or somebody makes room: no hour's work is lost for that."""

    @pytest.fixture(params=[errno.ENOSPC, errno.EDQUOT], ids=["disk", "quota"])
    def full(self, request, monkeypatch):
        """Makes the disk full for so many writes."""

        def fill(times):
            tried = []

            def failing(wrapped):
                def write(*arguments):
                    tried.append(arguments)
                    if len(tried) <= times:
                        raise OSError(request.param, "No space left on device")
                    return wrapped(*arguments)

                return write

            monkeypatch.setattr(shutil, "copyfile", failing(shutil.copyfile))
            monkeypatch.setattr(Path, "write_bytes", failing(Path.write_bytes))
            return tried

        return fill

    @pytest.mark.parametrize("operation", ["write", "upload"])
    def test_it_is_waited_for(self, full, clock, tmp_path, operation):
        uri = str(tmp_path / "place" / "x")
        call = operations(storage_of(uri), uri, tmp_path)[operation]
        full(4)
        call()
        assert Path(uri).read_bytes() == b"1"
        assert [path.name for path in Path(uri).parent.iterdir()] == ["x"]
        assert len(clock.sleeps) == 4
        assert clock.sleeps[0] <= patience.FIRST_PAUSE_S
        assert clock.sleeps[3] > 2 * patience.FIRST_PAUSE_S, "pauses grow"

    @pytest.mark.parametrize("operation", ["write", "upload"])
    def test_then_it_is_told(self, full, clock, tmp_path, operation):
        uri = str(tmp_path / "place" / "x")
        call = operations(storage_of(uri), uri, tmp_path)[operation]
        full(10**6)
        with pytest.raises(StorageError, match=r"writing .*: No space.*; free some space, or cho"):
            call()
        assert list(Path(uri).parent.iterdir()) == []
        longest = patience.FULL_DISK_PATIENCE_S
        assert longest - patience.LONGEST_PAUSE_S <= clock.now <= longest

    def test_a_download_from_a_bucket_waits_too(self, bucket, clock, tmp_path, monkeypatch):
        uri, failures = f"{bucket}/x", [errno.ENOSPC]
        storage_of(uri).write(uri, b"1")
        download = s3._client().download_file

        def fail_once(*arguments):
            if failures:
                raise OSError(failures.pop(), "No space left on device")
            return download(*arguments)

        monkeypatch.setattr(s3._client(), "download_file", fail_once)
        storage_of(uri).download(uri, tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == b"1"
        assert len(clock.sleeps) == 1

    def test_other_failures_of_the_disk_are_told_at_once(self, clock, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr(Path, "write_bytes", refuse)
        with pytest.raises(StorageError, match="the disk is read-only"):
            storage_of("x").write(str(tmp_path / "x"), b"1")
        assert clock.sleeps == []

    def test_nobody_waits_before_the_work(self, clock, tmp_path, monkeypatch):
        from asha_ray import scratch

        def refuse(**_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(scratch.tempfile, "mkstemp", refuse)
        with pytest.raises(UnwritableError, match="free some space"):
            storage_of("x").check_writable(str(tmp_path / "x"))
        assert clock.sleeps == []
