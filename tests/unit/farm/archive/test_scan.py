"""The shows of an archive: each is found, once, and nothing else is taken for one."""

import hashlib
import os

import pytest

from asha_ray.errors import NotFoundError, SpecError
from asha_ray.farm.archive import scan as scanning
from asha_ray.farm.archive.globs import fits
from asha_ray.farm.archive.listing import files_below
from asha_ray.farm.archive.scan import scan, show_id_of
from asha_ray.progress import NullProgress
from asha_ray.storage import Entry, storage_of


def keys(spec):
    return [source.key for source in scan(spec, NullProgress()).sources]


class Bucket:
    """A storage that lists what a test says; a disk cannot hold all names that a bucket can."""

    def __init__(self, *names):
        self.entries = [Entry(f"s3://b/in/{name}", 1, 0.0, "v") for name in names]

    def list(self, uri, *, after="", refuse=lambda _: None):
        for entry in self.entries:
            key = entry.uri.removeprefix("s3://b/in/")
            if key <= after:
                continue
            if any(part in ("", ".", "..") for part in key.split("/")):
                refuse(entry.uri)
            else:
                yield entry


@pytest.fixture
def bucket(monkeypatch):
    def hold(*names):
        monkeypatch.setattr(
            "asha_ray.farm.archive.listing.storage_of", lambda _: Bucket(*sorted(names))
        )

    return hold


def test_a_show_is_known_by_its_path_byte_by_byte():
    """Another hash would do a whole archive again."""
    assert show_id_of("a/\u00e9.mp3") == hashlib.sha256(b"a/\xc3\xa9.mp3").hexdigest()[:32]
    assert show_id_of("a/e\u0301.mp3") != show_id_of("a/\u00e9.mp3")


def test_a_source_says_what_a_list_says(archive):
    archive.put("2023/a.mp3", b"12345", modified_s=1000)
    (found,) = scan(archive.spec(), NullProgress()).sources
    uri = str(archive.source / "2023/a.mp3")
    assert (found.key, found.uri, found.num_bytes, found.modified_s) == (
        "2023/a.mp3", uri, 5, 1000.0,
    )  # fmt: skip
    assert found.version == storage_of(uri).version(uri)
    assert (found.sidecar, found.cue, found.cue_uri) == ("", "", "")


def test_only_sound_is_found_and_all_of_it(archive):
    for key in ("a.mp3", "b.FLAC", "c/d.m4a", "(e) f.opus", "#1.ogg", "é.wav", "Z.mp3", "z.mp3"):
        archive.put(key)
    for key in ("cover.jpg", "notes.txt", "film.mp4", "mp3", "a.mp3.part", ".hidden.mp3",
                "c/._d.m4a", ".Trash/x.mp3", "c/.asha/y.mp3"):  # fmt: skip
        archive.put(key)
    assert keys(archive.spec()) == [
        "#1.ogg", "(e) f.opus", "Z.mp3", "a.mp3", "b.FLAC", "c/d.m4a", "z.mp3", "é.wav",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("include", "exclude", "found"),
    [
        ((), ("*jingle*",), ["2023/a.mp3", "2024/Live/b.mp3"]),
        (("2024/*",), (), ["2024/Live/b.mp3", "2024/clip.mp4", "2024/jingle.mp3"]),
        (("*.MP4",), (), ["2024/clip.mp4"]),
        (("*/b.mp[34]", "2023/?.mp3"), (), ["2023/a.mp3", "2024/Live/b.mp3"]),
        (("*",), ("202[34]/*",), ["x.txt"]),
    ],
    ids=["exclude", "folder", "case", "several", "both"],
)
def test_patterns_say_what_counts(archive, include, exclude, found):
    for key in ("2023/a.mp3", "2024/Live/b.mp3", "2024/clip.mp4", "2024/jingle.mp3", "x.txt"):
        archive.put(key)
    assert keys(archive.spec(include=include, exclude=exclude)) == found


@pytest.mark.parametrize(
    ("pattern", "text", "fitting"),
    [
        ("H\u00f6hle*", "H\u00d6HLE 1", True),
        ("H\u00f6hle*", "Ho\u0308hle 1", True),
        ("a.b", "aXb", False),
        ("*", "", True),
        ("a", "ab", False),
        ("[[]x]", "[x]", True),
        ("a*b", "a\n/b", True),
    ],
)
def test_a_pattern_is_of_a_whole_text_in_any_case(pattern, text, fitting):
    assert fits((pattern,), text) is fitting


def test_a_pattern_made_to_take_for_ever_does_not():
    """It would be tried against every path of an archive."""
    assert not fits(("*a" * 40 + "b",), "a" * 1000)


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ("path", ["a.mp3", "b.mp3", "c.mp3", "d.mp3"]),
        ("newest", ["c.mp3", "a.mp3", "b.mp3", "d.mp3"]),
        ("largest", ["b.mp3", "d.mp3", "a.mp3", "c.mp3"]),
    ],
)
def test_shows_are_in_order_and_equal_ones_by_path(archive, order, found):
    for key, num_bytes, modified_s in (("a", 1, 20), ("b", 9, 20), ("c", 1, 30), ("d", 9, 10)):
        archive.put(f"{key}.mp3", b"x" * num_bytes, modified_s)
    assert keys(archive.spec(order=order)) == found


def test_what_lies_beside_a_show_is_known(archive):
    """It tells that a show has changed, with nothing opened."""
    for key in ("a.mp3", "a.mp3.asha.yaml", "a.cue", "b.flac", "b.flac.CUE", "b.cue", "c.mp3",
                "d.cue", "x/a.mp3"):  # fmt: skip
        archive.put(key)
    found = {
        source.key: source for source in scan(archive.spec(include="*"), NullProgress()).sources
    }
    assert list(found) == ["a.mp3", "b.flac", "c.mp3", "x/a.mp3"], "what lies beside is no show"
    version = storage_of("/").version
    a = found["a.mp3"]
    assert a.sidecar_uri == f"{a.uri}.asha.yaml"
    assert a.sidecar == version(a.sidecar_uri)
    assert a.cue_uri == str(archive.source / "a.cue")
    assert a.cue == version(a.cue_uri)
    assert found["b.flac"].cue_uri == str(archive.source / "b.flac.CUE"), "the nearest"
    assert (found["c.mp3"].sidecar, found["c.mp3"].cue, found["x/a.mp3"].cue) == ("", "", "")


def test_what_is_empty_is_refused_by_name(archive):
    """Else an upload that broke off would be missed by nobody."""
    archive.put("a.mp3", b"")
    archive.put("b.jpg", b"")
    archive.put("c.mp3")
    found = scan(archive.spec(), NullProgress())
    assert [source.key for source in found.sources] == ["c.mp3"]
    assert found.refused == [("a.mp3", "it is empty")]


def test_a_name_that_no_path_may_have_is_refused(archive):
    archive.put("a.mp3")
    archive.put("b\x07.mp3")
    archive.put("Icon\r")
    archive.put("new\nline/c.mp3")
    os.close(os.open(os.fsencode(archive.source) + b"/\xff.mp3", os.O_CREAT))
    found = scan(archive.spec(), NullProgress())
    assert [source.key for source in found.sources] == ["a.mp3"]
    assert found.refused == [
        ("\\udcff.mp3", "its name is no UTF-8 text; rename it"),
        ("b\\x07.mp3", "its name holds control characters; rename it"),
        ("new\\x0aline", "its name holds control characters; rename it"),
    ]


def test_in_a_bucket_names_can_be_worse(archive, bucket):
    bucket("../x.mp3", "a//b.mp3", "c/./d.mp3", "e.mp3", "a//b.jpg", ".asha/1", "..x/y.mp3")
    found = scan(archive.spec(source="s3://b/in/"), NullProgress())
    assert [source.key for source in found.sources] == ["e.mp3"]
    assert [name for name, _ in found.refused] == ["../x.mp3", "a//b.mp3", "c/./d.mp3"]
    assert (
        found.refused[0][1] == "its name holds '.', '..' or empty parts between slashes; rename it"
    )


@pytest.mark.parametrize("output", ["out", "deep/out/", "."])
def test_what_the_archive_made_is_no_show(archive, output):
    """Else each run would make videos of the videos of the last."""
    archive.put("a.mp3")
    archive.put("out.mp3")
    archive.put("outer/b.mp3")
    for key in ("v.mp4", "v.m4a", ".asha/segments/1.m4a", ".ledger/x.wav"):
        archive.put(f"{output}/{key}")
    spec = archive.spec(output=archive.source / output)
    beside = ["v.m4a"] if output == "." else []
    assert keys(spec) == sorted(["a.mp3", "out.mp3", "outer/b.mp3", *beside])


def test_videos_are_no_shows_where_they_cannot_be_told_apart(archive):
    with pytest.raises(SpecError, match="the videos would lie there too"):
        keys(archive.spec(output=f"{archive.source}/", include="*"))


def test_a_source_below_the_output_is_read(archive):
    archive.put("a.mp3")
    assert keys(archive.spec(output=archive.source.parent)) == ["a.mp3"]


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("nowhere", NotFoundError, "there is no such folder; check the path"),
        ("a.mp3", SpecError, "it is a file; give the folder that holds the shows"),
    ],
)
def test_a_source_that_is_none_is_told(archive, name, kind, message):
    archive.put("a.mp3")
    with pytest.raises(kind, match=f"finding shows in .*{name}: {message}"):
        keys(archive.spec(source=archive.source / name))


def test_a_prefix_that_holds_nothing_is_told(archive, bucket):
    bucket()
    with pytest.raises(NotFoundError, match="nothing is there; check the bucket and the prefix"):
        keys(archive.spec(source="s3://b/in"))


def test_a_folder_without_shows_is_none_to_complain_of(archive):
    assert keys(archive.spec()) == []


def test_a_list_does_not_go_through_what_asha_ray_keeps(archive, monkeypatch):
    """Of segments there may be a hundred million, at a thousand an answer."""
    for key in ("(a).mp3", "b/.asha/1", "b/.asha/2/3", "b/c.mp3", "v/1.mp4", "v/2.mp4", "w.mp3"):
        archive.put(key)
    seen = []
    storage = storage_of(str(archive.source))

    class Watched:
        def list(self, uri, **options):
            for entry in storage.list(uri, **options):
                seen.append(entry.uri.removeprefix(f"{archive.source}/"))
                yield entry

    monkeypatch.setattr("asha_ray.farm.archive.listing.storage_of", lambda _: Watched())
    found = [key for key, _ in files_below(str(archive.source), but=["v/"])]
    assert found == ["(a).mp3", "b/c.mp3", "w.mp3"]
    assert set(seen) - set(found) == {"b/.asha/1", "v/1.mp4"}, "one each tells where it begins"


def test_every_suffix_is_lower_case():
    """A name's is made so before it is looked for."""
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in scanning.SOUND_SUFFIXES)
