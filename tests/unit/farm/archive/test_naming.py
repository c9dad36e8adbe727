"""Names: what paths say, and outputs that no tag, however hostile, leads astray."""

import unicodedata
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asha_ray.errors import SpecError
from asha_ray.farm.archive.catalogue import CATALOGUE
from asha_ray.farm.archive.naming import (
    MAX_NAME_BYTES,
    MAX_PATH_BYTES,
    NAME_WORDS,
    OWN_FILES,
    check_patterns,
    fold,
    output_name,
    slug,
    words_from_path,
)
from asha_ray.farm.archive.report import REPORT
from asha_ray.spec import ArchiveSpec, build
from asha_ray.storage.base import is_below


def spec_of(**fields: Any) -> ArchiveSpec:
    return build(ArchiveSpec, {"source": "/in", "output": "/out", "model": "/m", **fields})


FITTING = [
    ("Jazz/2023-05-01_Live.mp3", "{show}/{date}_{title}", ("Jazz", "2023-05-01", "Live")),
    ("Jazz/20230501_Live.mp3", "{show}/{date}_{title}", ("Jazz", "2023-05-01", "Live")),
    ("Jazz/2023_05_01_Live.mp3", "{show}/{date}_{title}", ("Jazz", "2023-05-01", "Live")),
    ("Jazz/01.05.2023 Live.mp3", "{show}/{date} {title}", ("Jazz", "2023-05-01", "Live")),
    ("Jazz/1999 Live.mp3", "{show}/{date} {title}", ("Jazz", "1999", "Live")),
    ("Jazz/1999-07 Live.mp3", "{show}/{date} {title}", ("Jazz", "1999-07", "Live")),
    ("Jazz/a/2023-05-01 final.wav", "{show}/*/{date}*", ("Jazz", "2023-05-01", None)),
    ("Jazz/2023-05-01.wav", "{show}/{date}*", ("Jazz", "2023-05-01", None)),
    ("Jazz_Live_from_Rome.mp3", "{show}_{title}", ("Jazz", None, "Live_from_Rome")),
    ("Best of 1999 2023-05-01.mp3", "*{date}*", (None, "2023-05-01", None)),
    ("mix-1080-2023.mp3", "*{date}*", (None, "2023", None)),
    ("Jazz/Jazz_Live.mp3", "{show}/{show}_{title}", ("Jazz", None, "Live")),
    ("a_b/a_b_Live.mp3", "{show}/{show}_{title}", ("a_b", None, "Live")),
    ("SHOWS/Jazz.v2.mp3", "shows/{title}", (None, None, "Jazz.v2")),
    ("Cafe\u0301/x.mp3", "Caf\u00e9/{title}", (None, None, "x")),
    ("Jazz/xyz.mp3", "{show}/{stem}", ("Jazz", None, None)),
    ("a[1].b/x+(2).mp3", "a[1].b/{title}+(2)", (None, None, "x")),
]

UNFITTING = [
    ("Jazz/Live.mp3", "{show}"),
    ("Live.mp3", "{show}/{title}"),
    ("Jazz/Live/x.mp3", "{show}/{title}"),
    ("Jazz/.mp3", "{show}/{date}"),
    ("Jazz/2023-13-01.mp3", "{show}/{date}"),
    ("Jazz/120230501.mp3", "{show}/*{date}"),
    ("Jazz/05-01-2023.mp3", "{show}/{date}"),
    ("Jazz/Rock_x.mp3", "{show}/{show}_*"),
    ("axb.mp3", "a.b"),
    ("ab.mp3", "a{title}b"),
]


class TestPaths:
    @pytest.mark.parametrize(("key", "pattern", "said"), FITTING, ids=str)
    def test_say_what_their_pattern_names(
        self, key: str, pattern: str, said: tuple[str | None, ...]
    ) -> None:
        expected = dict(zip(("show", "date", "title"), said, strict=True))

        found = words_from_path(key, [pattern])

        assert found == {word: text for word, text in expected.items() if text}

    @pytest.mark.parametrize(("key", "pattern"), UNFITTING)
    def test_that_do_not_fit_say_nothing(self, key: str, pattern: str) -> None:
        assert words_from_path(key, [pattern]) == {}

    def test_go_to_the_first_pattern_that_fits(self) -> None:
        patterns = ["{show}/{date}_{title}", "{artist}/{album}/{title}", "{show}/{title}"]

        assert words_from_path("a/b/c.mp3", patterns) == {"artist": "a", "album": "b", "title": "c"}
        assert words_from_path("a/c.mp3", patterns) == {"show": "a", "title": "c"}

    def test_may_say_a_year_beside_a_date(self) -> None:
        patterns = ["{year}/{show}/{date}", "{year}/{artist}/{album}"]

        assert words_from_path("2023/Jazz/2023-05-01.mp3", patterns) == {
            "year": "2023",
            "show": "Jazz",
            "date": "2023-05-01",
        }
        assert words_from_path("1999/a/b.mp3", patterns) == {
            "year": "1999",
            "artist": "a",
            "album": "b",
        }
        assert words_from_path("1080/a/b.mp3", patterns) == {}

    def test_give_words_in_one_printable_line(self) -> None:
        assert words_from_path("a\n\x07b /c.mp3", ["{show}/*"]) == {"show": "a b"}

    @pytest.mark.parametrize(
        ("key", "pattern"),
        [
            ("a_" * 500 + "!.mp3", "_".join(["{title}", *["*"] * 99, "{show}"]) + "?"),
            ("2023" * 250 + ".mp3", "*{date}*{year}*{title}x"),
            ("a" * 1000 + ".mp3", "*" * 150 + "b"),
        ],
        ids=["words", "dates", "stars"],
    )
    def test_that_are_hostile_are_told_at_once(self, key: str, pattern: str) -> None:
        """A matcher that goes back and tries again would not return within a lifetime."""
        assert words_from_path(key, [pattern]) == {}


class TestPatterns:
    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"names": "{show}/{year}/{date} {title}"},
            {"names": "videos"},
            {"paths": ["{show}/{date}_{title}", "*/{artist} - {title}", "{show}/{show} {date}"]},
        ],
        ids=str,
    )
    def test_that_can_be_read_pass(self, fields: dict[str, Any]) -> None:
        check_patterns(spec_of(**fields))

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"names": "{episode}"}, r"names: there is no word \{episode\} in .*\{path\}.*\{id\}"),
            ({"names": "{}"}, r"names: there is no word \{\}"),
            ({"names": "{show"}, r"names: a brace is open or closed alone in '\{show'"),
            ({"names": "show}"}, r"names: a brace .* write words as \{show\}; there are \{path\}"),
            ({"names": "{{show}}"}, r"names: a brace"),
            ({"paths": ["{show}/*", "{path}"]}, r"paths: there is no word \{path\} .*\{stem\}"),
            ({"paths": "{show}/{date"}, r"paths: a brace"),
            ({"paths": "{show} {show}"}, r"paths: \{show\} comes twice .*; write \* for one"),
        ],
        ids=str,
    )
    def test_that_cannot_are_refused(self, fields: dict[str, Any], reason: str) -> None:
        with pytest.raises(SpecError, match=reason):
            check_patterns(spec_of(**fields))


WORDS = {
    "path": "Jazz Hour/2023/show 12",
    "folder": "Jazz Hour/2023",
    "stem": "show 12",
    "show": "Jazz Hour",
    "date": "2023-05-01",
    "year": "2023",
    "title": "Live",
    "artist": "Åsa",
    "album": "",
    "id": "ab12",
}

NAMED = [
    ("{path}", "Jazz Hour/2023/show 12"),
    ("{show}/{date} {title}", "Jazz Hour/2023-05-01 Live"),
    ("{folder}/{stem}-{id}", "Jazz Hour/2023/show 12-ab12"),
    ("videos/{year}/{artist}", "videos/2023/Åsa"),
    ("{album}/{title}", "Live"),
    ("{album} - {title}", "Live"),
    ("{title} - {album}", "Live"),
    ("{show} - {album} - {title}", "Jazz Hour - Live"),
    ("{show}_{album} {title}", "Jazz Hour_Live"),
    ("{show}{album}_{title}", "Jazz Hour_Live"),
    ("{title} ({album})", "Live"),
    ("{title} ({album}) [{id}]", "Live [ab12]"),
    ("{title} ({album} {year})", "Live (2023)"),
    ("{album} [{id}]", "ab12"),
    ("{album}, {album}: {title}, {album}", "Live"),
    ("{show} no. {album}", "Jazz Hour no"),
    ("{show}/{album}", "Jazz Hour/show 12"),
    ("{album}", "show 12"),
    ("{show}//{title}/", "Jazz Hour/Live/show 12"),
    ("a*b/{title}?", "a_b/Live_"),
]

CLEANED = [
    ("AC/DC", "AC_DC"),
    ("../../etc/passwd", "_.._etc_passwd"),
    ("..", "show 12"),
    ("...", "show 12"),
    (" .-#x", "x"),
    ("-rf", "rf"),
    ("C:\\x", "C__x"),
    ('a*b?c"d<e>f|g', "a_b_c_d_e_f_g"),
    ("a\x00b\nc\x7fd\x85e", "a_b_c_d_e"),
    ("a\ud800b", "a_b"),
    ("ends. . ", "ends"),
    ("(What's the Story) Morning", "What's the Story Morning"),
    ("(a (b) c", "a (b) c"),
    ("„Heimat“ heute", "Heimat heute"),
    ("_private", "_private"),
    ("Cafe\u0301", "Caf\u00e9"),
    ("a\u202etxt.exe", "atxt.exe"),
    ("می\u200cخواهم", "می\u200cخواهم"),
    ("a\u3000b", "a b"),
    ("夜の番組", "夜の番組"),
    ("CON", "CON_"),
    ("nul.tar.gz", "nul_.tar.gz"),
    ("COM¹", "COM¹_"),
    ("Lpt1 .x", "Lpt1_.x"),
    ("console", "console"),
]


class TestOutputs:
    @pytest.mark.parametrize(("pattern", "expected"), NAMED)
    def test_are_made_of_words_and_nothing_dangles(self, pattern: str, expected: str) -> None:
        assert output_name(pattern, WORDS) == expected

    @pytest.mark.parametrize(("title", "expected"), CLEANED, ids=ascii)
    def test_are_clean(self, title: str, expected: str) -> None:
        assert output_name("{title}", {"title": title, "stem": "show 12"}) == expected

    def test_keep_the_folders_of_paths_and_no_others(self) -> None:
        words = {"path": "../AC/./DC//x", "folder": "/AC", "title": "AC/DC", "id": "1"}

        assert output_name("{path}", words) == "AC/DC/x"
        assert output_name("{folder}/{title}", words) == "AC/AC_DC"

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("a.strip", "a.strip_"),
            ("a.STRIP. ", "a.STRIP_"),
            ("a.ｓtrip", "a.ｓtrip_"),
            ("a.strips", "a.strips"),
            ("a.mp4", "a.mp4"),
            ("a.mp4/b", "a.mp4_/b"),
            ("x/a.mp4.JSON/b", "x/a.mp4.JSON_/b"),
            ("a.jpg/a.jpg/b", "a.jpg_/a.jpg_/b"),
            ("Report.html/b", "Report.html_/b"),
            ("catalogue.parquet/b", "catalogue.parquet_/b"),
            ("a.strip/b", "a.strip/b"),
            ("x" * 144 + ".strip", "x" * 141 + "-b7dd4f51"),
        ],
    )
    def test_have_no_file_that_could_be_anothers(self, path: str, expected: str) -> None:
        """`a.strip` has its poster where `a` has its strip; `a.mp4` is a file and no folder."""
        assert output_name("{path}", {"path": path}) == expected
        folder, _, name = path.rpartition("/")
        words = {"folder": folder, "stem": name, "title": "#"}
        assert output_name("{folder}/{title}", words) == expected

    def test_know_the_archives_own_files(self) -> None:
        assert set(OWN_FILES) == {REPORT, CATALOGUE}

    def test_without_any_word_are_the_id(self) -> None:
        assert output_name("{show}/{title}", {"stem": "##", "id": "ab12"}) == "ab12"

    @pytest.mark.parametrize("letter", ["a", "é", "夜", "🎷"])
    def test_that_are_too_long_are_cut_at_a_letter_and_stay_apart(self, letter: str) -> None:
        one, two = (output_name("{title}", {"title": "x" + letter * 150 + end}) for end in "yz")

        assert one != two
        assert one[:-8] == two[:-8] == "x" + letter * (len(one) - 10) + "-"
        assert MAX_NAME_BYTES - 4 < len(one.encode()) <= MAX_NAME_BYTES

    def test_that_just_fit_are_left_alone(self) -> None:
        assert output_name("{title}", {"title": "a" * MAX_NAME_BYTES}) == "a" * MAX_NAME_BYTES

    def test_in_too_many_folders_lose_the_inner_ones(self) -> None:
        folders = [letter * 140 for letter in "abcdef"]
        one, two = (output_name("{path}", {"path": "/".join([*folders, end])}) for end in "xy")

        assert one != two
        assert one.split("/")[:-1] == folders[:4]
        assert one.split("/")[-1].startswith("x-")
        assert len(one.encode()) <= MAX_PATH_BYTES


TEXTS = st.text(st.characters(), max_size=40) | st.text(
    "a. /\\\x00-#_(AÅ\u0301\u200d夜", max_size=200
)


@given(
    pattern=st.sampled_from([pattern for pattern, _ in NAMED]),
    words=st.dictionaries(st.sampled_from(NAME_WORDS), TEXTS),
)
@example(pattern="{path}", words={"path": "/".join(["夜" * 60] * 30)})
@example(pattern="{path}", words={"path": "/".join(["a"] * 700)})
@example(pattern="{path}", words={})
def test_no_output_ever_leaves_its_folder(pattern: str, words: Mapping[str, str]) -> None:
    """What tags and file names say decides where files are written."""
    name = output_name(pattern, words)

    assert is_below(name)
    assert len(name.encode()) <= MAX_PATH_BYTES
    assert unicodedata.is_normalized("NFC", name)
    assert not set(name) & set('\\:*?"<>|')
    for component in name.split("/"):
        assert component[0].isalnum() or component[0] == "_"
        assert component[-1] not in ". "
        assert len(component.encode()) <= MAX_NAME_BYTES
    assert output_name("{path}", {"path": name}) == name, "a name that is taken changes no more"


PIECES = ["a", "A", ".", "．", "strip", "mp4", "json", "jpg", "/"]
STEMS = st.lists(st.sampled_from(PIECES), max_size=9).map("".join)


@given(st.sets(STEMS, min_size=2, max_size=4))
@example({"a", "a.strip"})
@example({"a", "a.mp4/a", "a.mp4.json/a"})
def test_no_file_is_two_shows_or_where_another_has_a_folder(paths: set[str]) -> None:
    names = {fold(output_name("{path}", {"path": path, "id": "0"})) for path in paths}
    ends = (".mp4", ".mp4.json", ".jpg", ".strip.jpg")
    files = [fold(f"{name}{end}") for name in names for end in ends]
    folders = {name[:at] for name in files for at, char in enumerate(name) if char == "/"}

    assert len(set(files)) == len(files)
    assert folders.isdisjoint(files)


@given(TEXTS)
@example("\u1e9e\u0345")
def test_a_fold_is_stable(name: str) -> None:
    """A name read back from a record must meet itself."""
    assert fold(fold(name)) == fold(name)
    assert fold(name.casefold()) == fold(name)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert fold(unicodedata.normalize(form, name)) == fold(name)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Jazz/LIVE", "jazz/live"),
        ("Caf\u00e9", "CAFE\u0301"),
        ("Straße", "STRASSE"),
        ("ﬁlm", "FILM"),
    ],
)
def test_names_that_some_disk_takes_for_one_have_one_fold(one: str, two: str) -> None:
    assert fold(one) == fold(two)
    assert fold(one) != fold(one + "2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Night Shift #12", "the-night-shift-12"),
        ("Don't Stop", "dont-stop"),
        ("AC/DC — Live_1979", "ac-dc-live-1979"),
        ("Åsa & Ünal", "åsa-ünal"),
        ("हिन्दी गीत", "हिन्दी-गीत"),
        ("夜の 番組", "夜の-番組"),
        ("I ❤\ufe0f Radio", "i-radio"),
        ("  --  ", ""),
        ("", ""),
        ("a" * 79 + " b", "a" * 79),
        ("x" * 100, "x" * 80),
    ],
)
def test_a_slug_is_words_joined(text: str, expected: str) -> None:
    assert slug(text) == expected
