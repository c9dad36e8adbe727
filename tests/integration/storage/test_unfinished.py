"""What killed processes leave half written is found again, and nothing that is in use or whole."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asha_ray.errors import StorageError
from asha_ray.scratch import scratch_file, scratch_folder
from asha_ray.storage import Unfinished, join, s3, storage_of

CONTENT = b"half a segment"


@dataclass
class Place:
    """A folder or prefix, and how to leave something half written at a path below it."""

    root: str
    leave: Any

    @property
    def storage(self):
        return storage_of(self.root)

    def found(self, *parts):
        return list(self.storage.unfinished(join(self.root, *parts)))


def _leave_on_disk(uri):
    """As `scratch_file` does, without a process that holds it."""
    folder = Path(uri).parent
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_file(folder) as held:
        pass
    held.write_bytes(CONTENT)
    return str(held)


def _leave_in_bucket(uri):
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    where = {"Bucket": bucket, "Key": key}
    begun = s3._client().create_multipart_upload(**where)["UploadId"]
    s3._client().upload_part(**where, UploadId=begun, PartNumber=1, Body=CONTENT)
    return uri


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path):
    if request.param == "local":
        return Place(str(tmp_path / "place"), _leave_on_disk)
    return Place(f"{request.getfixturevalue('bucket')}/place", _leave_in_bucket)


def test_it_is_found_anywhere_below_and_only_there(place):
    left = {place.leave(join(place.root, key)) for key in ("a", "work/segments/b", "work/c")}
    other = place.leave(f"{place.root}-other/x")
    found = place.found()
    assert {one.uri for one in found} == left
    assert other not in left
    assert {one.num_bytes for one in found} == {len(CONTENT)}
    assert len(place.found("work")) == 2
    assert place.found("nothing") == []


def test_what_is_discarded_is_gone_and_the_rest_stays(place):
    whole = join(place.root, "whole")
    place.storage.write(whole, b"1")
    for key in ("a", "b"):
        place.leave(join(place.root, key))
    first, second = place.found()
    place.storage.discard(first)
    assert place.found() == [second]
    place.storage.discard(first)
    place.storage.discard(second)
    assert place.found() == []
    assert [entry.uri for entry in place.storage.list(place.root)] == [whole]


def test_none_of_it_is_listed(place):
    place.leave(join(place.root, "a"))
    assert list(place.storage.list(place.root)) == []


def test_a_place_of_whole_files_has_none(place):
    place.storage.write(join(place.root, "work", "asha-video.mp4"), b"1")
    assert place.found() == []


class TestLocal:
    def test_what_somebody_holds_stays(self, tmp_path):
        storage = storage_of(str(tmp_path))
        with scratch_file(tmp_path) as file, scratch_folder("chunk", tmp_path) as folder:
            (folder / "deep").mkdir()
            assert list(storage.unfinished(str(tmp_path))) == []
            for held in (file, folder):
                storage.discard(Unfinished(str(held), 0))
                assert held.exists()

    def test_a_folder_is_one_and_goes_whole(self, tmp_path):
        folder = tmp_path / "work" / ".asha-chunk-x"
        (folder / "deep").mkdir(parents=True)
        (folder / ".alive").write_bytes(b"")
        (folder / "deep" / "segment.mp4").write_bytes(CONTENT)
        [found] = storage_of("x").unfinished(str(tmp_path))
        assert found == Unfinished(str(folder), len(CONTENT))
        storage_of("x").discard(found)
        assert list((tmp_path / "work").iterdir()) == []

    def test_a_persons_own_folder_is_none(self, tmp_path):
        """An empty one may be called as the system's temporary ones are."""
        (tmp_path / "asha-output").mkdir()
        os.utime(tmp_path / "asha-output", (0, 0))
        assert list(storage_of("x").unfinished(str(tmp_path))) == []
        storage_of("x").discard(Unfinished(str(tmp_path / "asha-output"), 0))
        assert (tmp_path / "asha-output").is_dir()

    def test_discarding_harms_nothing_else(self, tmp_path):
        for name in ("v.mp4", ".asha-video.mp4"):
            (tmp_path / name).write_bytes(b"1")
            storage_of("x").discard(Unfinished(str(tmp_path / name), 1))
            assert (tmp_path / name).exists()

    def test_links_lead_nowhere(self, tmp_path):
        left = Path(_leave_on_disk(str(tmp_path / "elsewhere" / "x")))
        (tmp_path / "place").mkdir()
        (tmp_path / "place" / "link").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "place" / ".asha-link.tmp").symlink_to(left)
        assert list(storage_of("x").unfinished(str(tmp_path / "place"))) == []


class TestS3:
    @pytest.mark.parametrize(("hours", "found"), [(23, 0), (25, 1)])
    def test_somebody_may_still_work_on_what_is_young(self, bucket, hours, found):
        """moto says that all were begun in 2010."""
        _leave_in_bucket(f"{bucket}/x")

        def begun(parsed, **_):
            for upload in parsed.get("Uploads", []):
                upload["Initiated"] = datetime.now(UTC) - timedelta(hours=hours)

        s3._client().meta.events.register("after-call.s3.ListMultipartUploads", begun)
        assert len(list(storage_of(bucket).unfinished(bucket))) == found

    @pytest.mark.parametrize(
        ("status", "code"), [(501, "NotImplemented"), (405, "MethodNotAllowed")]
    )
    def test_a_server_that_does_not_know_uploads_has_none(self, scripted, clock, status, code):
        seen = scripted(lambda _: (status, f"<Code>{code}</Code>"))
        assert list(storage_of("s3://b").unfinished("s3://b/work")) == []
        assert (len(seen), clock.sleeps) == (1, []), "it will not learn by waiting"

    def test_another_refusal_is_told(self, scripted):
        scripted(lambda _: (403, "<Code>AccessDenied</Code>"))
        with pytest.raises(StorageError, match="listing s3://b/work: access is denied"):
            list(storage_of("s3://b").unfinished("s3://b/work"))

    @pytest.mark.parametrize("knows_marks", [True, False])
    def test_all_pages_are_read_and_none_for_ever(self, bucket, knows_marks):
        uris = sorted(_leave_in_bucket(f"{bucket}/{number}") for number in range(3))
        pages = []

        def one_by_one(parsed, **_):
            uploads = sorted(parsed["Uploads"], key=lambda upload: upload["Key"])
            page = uploads[len(pages) if knows_marks else 0]
            pages.append(page["Key"])
            parsed["Uploads"] = [page]
            parsed["IsTruncated"] = not knows_marks or len(pages) < len(uploads)
            parsed |= {"NextKeyMarker": page["Key"], "NextUploadIdMarker": page["UploadId"]}

        asked = []
        events = s3._client().meta.events
        events.register("after-call.s3.ListMultipartUploads", one_by_one)
        events.register(
            "provide-client-params.s3.ListMultipartUploads",
            lambda params, **_: asked.append((params["Prefix"], params.get("KeyMarker"))),
        )
        found = [one.uri for one in storage_of(bucket).unfinished(bucket)]
        if knows_marks:
            assert found == uris
            assert asked == [("", None), ("", "0"), ("", "1")]
        else:
            assert set(found) == {uris[0]}
            assert len(asked) == 2

    def test_one_that_ends_meanwhile_is_none(self, bucket):
        _leave_in_bucket(f"{bucket}/x")
        where = {"Bucket": bucket.removeprefix("s3://"), "Key": "x"}

        def end(parsed, **_):
            for upload in parsed["Uploads"]:
                s3._client().abort_multipart_upload(**where, UploadId=upload["UploadId"])

        s3._client().meta.events.register("after-call.s3.ListMultipartUploads", end)
        assert list(storage_of(bucket).unfinished(bucket)) == []
