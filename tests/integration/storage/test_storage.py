"""One conformance test for every storage: a local disk and S3 must not be told apart."""

import errno
import os
import shutil
import time

import pytest

from asha_ray.errors import NotFoundError, SpecError, StorageError, UnwritableError
from asha_ray.storage import Entry, basename, join, local, parent, s3, storage_of
from tests.integration.storage.conftest import KEY_ID, PART_BYTES, SECRET, operations


def _names(place, *parts):
    folder = join(place.root, *parts)
    return [entry.uri.removeprefix(f"{place.root}/") for entry in place.storage.list(folder)]


def test_what_is_written_is_read_back(place):
    uri = join(place.root, "deep", "er", "a.bin")
    for data in (b"", b"\0\1\2", b"x" * 100_000):
        place.storage.write(uri, data)
        assert place.storage.read(uri) == data
        assert place.storage.size(uri) == len(data)
    assert _names(place) == ["deep/er/a.bin"]


KEYS = [
    "with space.txt",
    "per%20cent%.txt",
    "hash#tag.txt",
    "question?.txt",
    "plus+and&.txt",
    "музыка 音楽 é.txt",
    "quote'\".txt",
    "a:b.txt",
    "[glob]*.txt",
    ".hidden",
    "back\\slash",
]


def test_any_key_names_exactly_one_file(place, tmp_path, subtests):
    """A `%` or `#` that is taken for an escape or a fragment loses an artist's track."""
    for key in KEYS:
        uri = join(place.root, key)
        with subtests.test(key=key):
            place.storage.write(uri, key.encode())
            assert list(place.storage.list(place.root)) == [Entry(uri, len(key.encode()))]
            place.storage.download(uri, tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == place.storage.read(uri) == key.encode()
            with place.storage.local_copy(uri) as path:
                assert path.read_bytes() == key.encode()
            place.storage.delete(uri)
            assert place.storage.size(uri) is None


def test_a_list_is_sorted_and_only_of_what_lies_below(place):
    """Prefix `a` taken as text would list, and `train` would delete, what is in `ab`."""
    for key in ("a/2", "a/1", "a/10", "a/b/c", "a-x", "a.txt", "ab/x", "b"):
        place.storage.write(join(place.root, key), b"1")
    assert _names(place, "a") == ["a/1", "a/10", "a/2", "a/b/c"]
    assert list(place.storage.list(join(place.root, "a") + "/")) == list(
        place.storage.list(join(place.root, "a"))
    )
    assert _names(place) == ["a-x", "a.txt", "a/1", "a/10", "a/2", "a/b/c", "ab/x", "b"]
    assert _names(place, "b") == []
    assert _names(place, "nothing") == []


def test_folders_are_listed_without_what_lies_in_them(place):
    """Jobs are found by their folders: a list of all their events would take minutes."""
    for key in ("jobs/2/a/b", "jobs/2/c", "jobs/1/x", "jobs/10/x", "jobs/3", "jobsite/4/x"):
        place.storage.write(join(place.root, key), b"1")
    assert list(place.storage.folders(join(place.root, "jobs"))) == ["1", "10", "2"]
    assert list(place.storage.folders(join(place.root, "jobs") + "/")) == ["1", "10", "2"]
    assert list(place.storage.folders(join(place.root, "nothing"))) == []
    assert list(place.storage.folders(join(place.root, "jobs", "3"))) == []


def test_a_list_tells_when_files_were_written(place):
    """By it, `clean` tells what somebody may be working on from what was left."""
    place.storage.write(join(place.root, "a"), b"1")
    (entry,) = place.storage.list(place.root)
    assert abs(time.time() - entry.modified_s) < 60


def test_a_list_is_as_long_as_the_folder(place):
    """S3 answers a thousand keys at a time."""
    for index in range(5):
        place.storage.write(join(place.root, f"{index}.txt"), b"")
    if place.root.startswith("s3://"):
        client = s3._client()
        client.meta.events.register(
            "before-parameter-build.s3.ListObjectsV2",
            lambda params, **_: params.update(MaxKeys=2),
        )
    assert _names(place) == [f"{index}.txt" for index in range(5)]


def test_what_is_missing_is_not_found(place, tmp_path):
    uri = join(place.root, "missing.wav")
    reads = (
        place.storage.read,
        lambda uri: place.storage.download(uri, tmp_path / "x"),
        lambda uri: place.storage.local_copy(uri).__enter__(),
    )
    for read in reads:
        with pytest.raises(NotFoundError) as caught:
            read(uri)
        text = str(caught.value)
        assert text.startswith(f"reading {uri}: ")
        assert "check the path" in text
        assert caught.value.exit_code == 2
    assert place.storage.size(uri) is None
    place.storage.delete(uri)


def test_a_file_is_put_there_and_fetched_again(place, tmp_path):
    source, uri = tmp_path / "source", join(place.root, "new", "copy.bin")
    source.write_bytes(b"content")
    place.storage.upload(source, uri)
    assert source.exists()
    place.storage.download(uri, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"
    source.write_bytes(b"other")
    place.storage.upload(source, uri)
    assert place.storage.read(uri) == b"other"


def test_a_local_copy_keeps_the_suffix_and_goes_away(place):
    uri = join(place.root, "track.flac")
    place.storage.write(uri, b"sound")
    with place.storage.local_copy(uri) as path:
        assert path.suffix == ".flac"
        assert path.read_bytes() == b"sound"
    assert path.exists() == (str(path) == uri), "only the file itself may stay"


def test_a_version_changes_with_the_content_and_not_without(place):
    """A copy that is kept by version would otherwise be used when it is stale."""
    uri = join(place.root, "versioned")
    assert place.storage.version(uri) is None
    place.storage.write(uri, b"one")
    first = place.storage.version(uri)
    assert first is not None
    assert place.storage.version(uri) == first
    place.storage.write(uri, b"another")
    assert place.storage.version(uri) != first


def test_a_folder_has_no_size(place):
    place.storage.write(join(place.root, "folder", "x"), b"1")
    assert place.storage.size(join(place.root, "folder")) is None


@pytest.mark.parametrize("existing", [None, b"old"], ids=["new", "replacing"])
def test_a_failed_upload_leaves_nothing_and_harms_nothing(place, tmp_path, existing):
    """Half a segment under its name would be taken for a whole one."""
    source, uri = tmp_path / "big", join(place.root, "v.mp4")
    source.write_bytes(bytes(PART_BYTES + 1000))
    if existing is not None:
        place.storage.write(uri, existing)
    place.fail_uploads()
    with pytest.raises(StorageError) as caught:
        place.storage.upload(source, uri)
    assert str(caught.value).startswith(f"writing {uri}: ")
    left = list(place.storage.list(place.root))
    assert left == ([] if existing is None else [Entry(uri, len(existing))])
    if existing is not None:
        assert place.storage.read(uri) == existing
    if place.root.startswith("s3://"):
        name = place.root.split("/")[2]
        assert not s3._client().list_multipart_uploads(Bucket=name).get("Uploads")


def test_a_source_that_does_not_exist_is_not_mistaken_for_the_target(place, tmp_path):
    """`upload` may not end in a bare FileNotFoundError, nor blame the place it writes to."""
    with pytest.raises(StorageError, match="no-such-source"):
        place.storage.upload(tmp_path / "no-such-source", join(place.root, "x"))
    assert _names(place) == []


def test_what_is_being_written_is_not_listed(tmp_path, monkeypatch):
    """Whoever lists a work root while others render would count and fetch half a file."""
    root, seen = tmp_path / "place", []
    storage = storage_of(str(root))
    copy = shutil.copyfile

    def watched(source, target):
        copy(source, target)
        seen.append(list(storage.list(str(root))))

    monkeypatch.setattr(local.shutil, "copyfile", watched)
    (tmp_path / "source").write_bytes(b"1")
    storage.upload(tmp_path / "source", str(root / "a"))
    assert seen == [[]]


def test_checking_that_a_place_is_writable_leaves_nothing_behind(place):
    uri = join(place.root, "new", "folders", "v.mp4")
    place.storage.check_writable(uri)
    assert _names(place) == []
    if not place.root.startswith("s3://"):
        with pytest.raises(FileNotFoundError):
            local.Path(place.root).stat()
    place.storage.write(uri, b"old")
    place.storage.check_writable(uri)
    assert place.storage.read(uri) == b"old"
    assert _names(place) == ["new/folders/v.mp4"]


class TestLocal:
    """What only a disk can do wrong."""

    def test_a_folder_that_cannot_be_listed_is_told(self, tmp_path, monkeypatch):
        """A render whose manifest is left out of a list would seem to need nothing."""
        (tmp_path / "renders").mkdir()
        scan = os.scandir

        def refuse(folder):
            if str(folder).endswith("renders"):
                raise PermissionError(errno.EACCES, "Permission denied", str(folder))
            return scan(folder)

        monkeypatch.setattr(local.os, "scandir", refuse)
        with pytest.raises(StorageError, match="Permission denied; check its permissions"):
            list(storage_of(str(tmp_path)).list(str(tmp_path)))

    def test_links_that_lead_nowhere_are_not_listed(self, tmp_path):
        (tmp_path / "gone").symlink_to(tmp_path / "nothing")
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        (tmp_path / "up").symlink_to(tmp_path, target_is_directory=True)
        (tmp_path / "file").write_bytes(b"1")
        (tmp_path / "link").symlink_to(tmp_path / "file")
        found = [basename(entry.uri) for entry in storage_of("x").list(str(tmp_path))]
        assert found == ["file", "link"]

    def test_a_file_in_the_way_of_a_folder_is_told(self, tmp_path):
        (tmp_path / "file").write_bytes(b"")
        uri = str(tmp_path / "file" / "v.mp4")
        storage = storage_of(uri)
        for write in (storage.check_writable, lambda uri: storage.write(uri, b"")):
            with pytest.raises(StorageError, match=r"part of the path is a file|File exists"):
                write(uri)

    def test_a_folder_is_not_overwritten(self, tmp_path):
        (tmp_path / "v.mp4").mkdir()
        storage, uri = storage_of(str(tmp_path)), str(tmp_path / "v.mp4")
        for write in (storage.check_writable, lambda uri: storage.write(uri, b"")):
            with pytest.raises(StorageError, match="it is a folder; give the name of a file"):
                write(uri)
        assert [path.name for path in tmp_path.rglob("*")] == ["v.mp4"]

    @pytest.mark.parametrize("method", ["read", "size", "local_copy", "check_writable", "delete"])
    def test_a_name_that_is_too_long_is_told(self, tmp_path, method):
        uri = str(tmp_path / ("x" * 300))
        try:
            result = getattr(storage_of(uri), method)(uri)
            if method == "local_copy":
                result.__enter__()
        except StorageError as error:
            assert str(error).startswith(  # noqa: PT017 (size may as well answer None)
                ("reading ", "writing ", "deleting ")
            )

    def test_new_files_have_the_users_usual_permissions(self, tmp_path):
        """mkstemp makes files that only their owner reads; a colleague could not watch them."""
        storage_of("x").write(str(tmp_path / "a"), b"")
        (tmp_path / "b").write_bytes(b"")
        assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode

    def test_relative_paths_are_fine(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        storage = storage_of("out")
        storage.write("out/x", b"1")
        assert [entry.uri for entry in storage.list("out")] == ["out/x"]
        assert storage.read("out/x") == b"1"


@pytest.fixture
def denied(scripted):
    """A server that refuses everyone, and repeats the key id as AWS does."""
    scripted(
        lambda _: (
            403,
            "<Code>InvalidAccessKeyId</Code><Message>The key does not exist</Message>"
            f"<AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId>",
        )
    )
    return "s3://bucket/place"


def require_told(subtests, tmp_path, text):
    """Every operation on a bucket says so."""
    uri = "s3://bucket/x"
    for operation, call in operations(storage_of(uri), uri, tmp_path).items():
        with subtests.test(operation=operation), pytest.raises(StorageError, match=text):
            call()


class TestS3:
    """What only a bucket can do wrong."""

    def test_denied_access_says_so_and_shows_no_credentials(self, denied, tmp_path, subtests):
        uri = f"{denied}/x"
        for operation, call in operations(storage_of(uri), uri, tmp_path).items():
            with subtests.test(operation=operation):
                with pytest.raises(StorageError, match=r"denied \(.*check credentials") as caught:
                    call()
                assert f"{uri}: access is denied" in str(caught.value)
                assert KEY_ID not in str(caught.value)
                assert SECRET not in str(caught.value)

    def test_without_credentials_it_says_where_they_come_from(
        self, aws, s3_server, monkeypatch, tmp_path, subtests
    ):
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        aws(s3_server)
        require_told(subtests, tmp_path, r"no AWS credentials; set AWS_PROFILE")

    def test_an_endpoint_that_is_down_is_told(self, aws, tmp_path, subtests):
        aws("http://127.0.0.1:9")
        require_told(subtests, tmp_path, r"cannot be reached; check AWS_ENDPOINT")

    def test_a_missing_bucket_is_not_found(self, bucket, tmp_path, subtests):
        uri = "s3://no-such-bucket-anywhere/x"
        for operation, call in operations(storage_of(uri), uri, tmp_path).items():
            if operation in ("size", "version", "delete", "discard"):
                continue
            expected = UnwritableError if operation == "check_writable" else NotFoundError
            with subtests.test(operation=operation):
                with pytest.raises(expected) as caught:
                    call()
                assert uri in str(caught.value)
                if operation in ("write", "upload", "check_writable", "list"):
                    told = str(caught.value).partition(uri)[2]
                    assert "bucket" in told, "the object is not at fault"

    @pytest.mark.parametrize("uri", ["s3://", "s3:///key", "s3://bucket", "s3://bucket/"])
    def test_a_uri_without_bucket_or_key_is_refused(self, bucket, uri):
        with pytest.raises(SpecError, match="write it as s3://bucket/key"):
            storage_of(uri).read(uri)

    def test_a_whole_bucket_can_be_listed(self, bucket):
        storage = storage_of(bucket)
        storage.write(f"{bucket}/a/b", b"12")
        assert list(storage.list(bucket)) == [Entry(f"{bucket}/a/b", 2)]
        assert list(storage.list(f"{bucket}/")) == [Entry(f"{bucket}/a/b", 2)]

    def test_the_marker_of_an_empty_folder_is_no_file(self, bucket):
        """The AWS console makes an object `images/` when a person creates a folder."""
        s3._client().put_object(Bucket=bucket.removeprefix("s3://"), Key="images/", Body=b"")
        storage_of(bucket).write(f"{bucket}/images/1.png", b"1")
        found = [entry.uri for entry in storage_of(bucket).list(f"{bucket}/images")]
        assert found == [f"{bucket}/images/1.png"]


@pytest.mark.parametrize(
    "uri", ["gs://b/k", "file:///x/y", "http://x/y.wav", "hdfs://x/y", "S3+x://b/k"]
)
def test_an_unknown_scheme_is_refused(uri):
    with pytest.raises(SpecError, match=r":// is not supported; give a local path or s3://"):
        storage_of(uri)


@pytest.mark.parametrize(
    ("uri", "parts", "joined"),
    [
        ("a", ("b",), "a/b"),
        ("a/", ("b", "c"), "a/b/c"),
        ("s3://b", ("k",), "s3://b/k"),
        ("s3://b/p/", ("k",), "s3://b/p/k"),
        ("/", ("tmp",), "/tmp"),
        ("a/", (), "a/"),
    ],
)
def test_paths_are_joined_with_one_slash(uri, parts, joined):
    assert join(uri, *parts) == joined


def test_parent_and_basename():
    assert parent("s3://b/p/k.mp4") == "s3://b/p"
    assert parent("s3://b/k/") == "s3://b"
    assert parent("/a/b") == "/a"
    assert parent("v.mp4") == str(local.Path.cwd())
    assert basename("s3://b/p/k.mp4") == "k.mp4"
    assert basename("/a/b/") == "b"


def test_a_list_can_begin_later(place):
    """What an archive has made lies beside its work, of which there may be millions of files."""
    for key in (".asha/segments/1", ".ledger/x", "0", "a/1", "a/2", "b"):
        place.storage.write(join(place.root, key), b"1")
    found = [entry.uri for entry in place.storage.list(place.root, after=".~")]
    assert found == [join(place.root, key) for key in ("0", "a/1", "a/2", "b")]


def test_a_list_can_begin_within_a_folder(place, subtests):
    """An archive goes on after a folder of its own, wherever that lies."""
    for key in ("a-b", "a/1", "a/v/1", "a/w", "b"):
        place.storage.write(join(place.root, key), b"1")
    for after, keys in {
        "a/v/": ["a/v/1", "a/w", "b"],
        "a/v/1": ["a/w", "b"],
        "a/v/\U0010ffff": ["a/w", "b"],
        "a/": ["a/1", "a/v/1", "a/w", "b"],
        "a": ["a-b", "a/1", "a/v/1", "a/w", "b"],
        "a/v/1/x": ["a/w", "b"],
    }.items():
        with subtests.test(after=after):
            found = [entry.uri for entry in place.storage.list(place.root, after=after)]
            assert found == [join(place.root, key) for key in keys]


def test_a_list_tells_what_changes_with_a_file(place):
    uri = join(place.root, "a")
    versions = set()
    for content in (b"1", b"22", b"33"):
        place.storage.write(uri, content)
        versions.add(next(place.storage.list(place.root)).version)
        assert next(place.storage.list(place.root)).version in versions
    assert len(versions) == 3
    assert "" not in versions


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2023-11-14T22:13:20.000Z", 1_700_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("20231114T221320Z", 1_700_000_000),
        ("2023-11-14T22:13:20.500+00:00", 1_700_000_000.5),
        ("Tue, 14 Nov 2023 22:13:20 GMT", 1_700_000_000),
        (1_700_000_000, 1_700_000_000),
    ],
)
def test_times_are_read_as_servers_write_them(text, seconds):
    """Lists and heads write them otherwise; a wrong one would be another version of a file."""
    assert s3._time_of(text).timestamp() == seconds


def test_a_session_reads_times_in_the_quick_way():
    """A list of 100,000 files takes ten seconds less."""
    factory = s3._new_session()._session.get_component("response_parser_factory")
    assert factory.create_parser("rest-xml")._timestamp_parser is s3._time_of
