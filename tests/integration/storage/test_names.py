"""Names that come from elsewhere lead nowhere else."""

import pytest

from asha_ray.errors import SpecError, StorageError
from asha_ray.storage import join, s3, storage_of
from asha_ray.storage.base import safe_name
from asha_ray.storage.stems import StemStore
from tests.integration.storage.conftest import operations

OUTSIDE = ["..", "../x", "a/../../x", "/etc/passwd", "", "a//b", "a/", ".", "./a", "a\nb", "a\0b"]


@pytest.mark.parametrize("part", OUTSIDE)
@pytest.mark.parametrize("root", ["work", "/work", "s3://bucket/work"])
def test_a_joined_path_lies_below(root, part):
    with pytest.raises(StorageError, match="does not lie below it; give names without"):
        join(root, "segments", part)


@pytest.mark.parametrize("part", ["..a", "a..b", "a/b.c/d", "...", "with space", "音", "-", "~"])
def test_odd_names_are_names(part):
    assert join("s3://b/w", part) == f"s3://b/w/{part}"


def test_a_key_that_could_be_taken_for_another_is_refused(scripted, tmp_path, subtests):
    """urllib3 resolves `..` as in any address: `s3://bucket/../other/x` would reach `other`."""
    seen = scripted(lambda _: None)
    for path in (
        *("bucket/a/../b", "bucket/../other/x", "bucket//x", "bucket/a//x", "../x"),
        *("bucket/a\nb", "bucket/./x"),
    ):
        calls = operations(storage_of("s3://bucket/x"), f"s3://{path}", tmp_path)
        for operation, call in calls.items():
            with subtests.test(path=path, operation=operation):
                with pytest.raises(SpecError, match=r"write it as s3://bucket/key, without '\.\.'"):
                    call()
                assert seen == []


def test_keys_that_no_disk_could_hold_are_not_listed(scripted):
    """What a list names can be read, and put below a folder."""
    keys = ["w/a", "w/../b", "w//c", "w/d/", "w/./e", "w/f"]
    facts = "<Size>1</Size><ETag>1</ETag><LastModified>2026-01-01T00:00:00Z</LastModified>"
    content = "".join(f"<Contents><Key>{key}</Key>{facts}</Contents>" for key in keys)
    listed = f"<ListBucketResult>{content}</ListBucketResult>".encode()
    scripted(lambda handler: handler._send(200, listed) or (-1, ""))
    found = [entry.uri for entry in storage_of("s3://b").list("s3://b/w")]
    assert found == ["s3://b/w/a", "s3://b/w/f"]


@pytest.mark.parametrize("text", ["0", "a" * 128, "0f3c", "drums", "Show-1_b.mp4"])
def test_a_safe_name_stays_as_it_is(text):
    assert safe_name(text, "chunk id") == text


@pytest.mark.parametrize(
    "text",
    ["", "a" * 129, "..", "a..b", ".hidden", "-rf", "_x", "a/b", "a\\b", "a b", "a\n", "é", "a%2e"],
)
def test_any_other_is_refused(text):
    with pytest.raises(StorageError, match=r"^chunk id '.*': it is no name \(letters") as caught:
        safe_name(text, "chunk id")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("key", ["../secret", "", "a/b"])
def test_stems_lie_below_their_work_root(tmp_path, key):
    with pytest.raises(StorageError, match="it is no name"):
        StemStore(str(tmp_path), key)


def test_the_bucket_is_what_comes_first():
    assert s3._split("s3://bucket/a/b") == ("bucket", "a/b")
    assert s3._split("s3://bucket/a/", key_needed=False) == ("bucket", "a/")
