"""Settings from show to show: the later word counts, and a wrong one is told before it costs."""

from dataclasses import replace

import pytest

from asha_ray.errors import NotFoundError, SpecError
from asha_ray.farm.archive.rules import (
    SettingsDigests,
    ShowFacts,
    check_rules,
    may_fit,
    model_versions,
    read_sidecar,
    resolve,
)
from asha_ray.farm.archive.scan import Source
from asha_ray.spec import MAX_SPEC_BYTES, ArchiveSpec, ShowRule, Sidecar, build

FACTS = ShowFacts("2023/Live/a.mp3", "Höhle", "Folge 1", "DJ A", "Höhle 2023", "2023-05-01", 3600.0)
SOURCE = Source("2023/Live/a.mp3", "s3://b/in/2023/Live/a.mp3", 1, 0.0, "v")


def spec(*rules, **fields):
    places = {"source": "s3://b/in", "output": "s3://b/out", "model": "s3://b/m"}
    return build(ArchiveSpec, {**places, "rules": rules, **fields})


def test_without_rules_the_archives_settings_count():
    given = spec(video={"crf": 20}, motion={"min_factor": 2}, seed=3)
    choice = resolve(given, FACTS, None)
    assert (choice.skip, choice.model, choice.seed) == (False, "s3://b/m", 3)
    assert (choice.start, choice.duration) == (0.0, None)
    assert choice.video.model_dump() == given.video.model_dump()
    assert choice.video.sound == "copy", "also where the archive says something else of the picture"
    assert choice.motion == given.motion
    assert choice.features == given.features


def test_the_last_that_says_something_of_a_field_counts():
    given = spec(
        {"video": {"crf": 30, "fps": 25}, "seed": 1, "start": 5, "skip": True},
        {"match": {"show": "other"}, "video": {"crf": 1}, "seed": 2},
        {"match": {"show": "höhle"}, "video": {"crf": 28}, "model": "s3://b/n", "start": 0},
        video={"preset": "slow", "crf": 10},
    )
    sidecar = build(Sidecar, {"video": {"fps": "29.97"}, "duration": 60, "skip": False})
    choice = resolve(given, FACTS, sidecar)
    video = choice.video
    assert (video.preset, video.crf, video.fps, video.sound) == ("slow", 28, "30000/1001", "copy")
    assert (choice.skip, choice.model, choice.seed) == (False, "s3://b/n", 1)
    assert (choice.start, choice.duration) == (0.0, 60.0)


def test_a_rule_can_take_a_field_back_to_its_default():
    """Else what the archive says could only be changed to something else."""
    given = spec({"video": {"crf": 18}, "motion": {"keyframes": None}},
                 video={"crf": 30}, motion={"keyframes": "k.npy"})  # fmt: skip
    choice = resolve(given, FACTS, None)
    assert (choice.video.crf, choice.motion.keyframes) == (18, None)


@pytest.mark.parametrize(
    ("match", "fitting"),
    [
        ({}, True),
        ({"path": "2023/*"}, True),
        ({"path": ["2022/*", "*/live/*"]}, True),
        ({"path": "2022/*"}, False),
        ({"artist": "dj *", "date": "2023-*"}, True),
        ({"artist": "dj *", "date": "2024-*"}, False),
        ({"title": "?", "album": "*"}, False),
        ({"min_duration": 3600, "max_duration": 3600}, True),
        ({"min_duration": 3601}, False),
        ({"max_duration": 3599}, False),
    ],
    ids=str,
)
def test_a_rule_is_for_what_fits_all_of_it(match, fitting):
    assert resolve(spec({"match": match, "skip": True}), FACTS, None).skip is fitting


def test_a_length_that_is_not_known_fits_no_bounds():
    unknown = replace(FACTS, duration_s=None)
    for match in ({"min_duration": 0.1}, {"max_duration": 1e6}):
        assert not resolve(spec({"match": match, "skip": True}), unknown, None).skip


def test_every_wrong_field_of_every_rule_is_told_at_once():
    """A hundred shows may be rendered before the first that a rule fits."""
    given = spec(
        {"video": {"crf": 99}, "motion": {"nmae": "x"}},
        {"video": {"crf": 20}},
        {"features": {"decay_rate": 2}, "video": {"fps": "fast"}},
    )
    with pytest.raises(SpecError) as caught:
        check_rules(given)
    lines = str(caught.value).removeprefix("archive: ").split("\n  ")
    assert [line.partition(": ")[0] for line in lines] == [
        "rules.0.video.crf", "rules.0.motion.nmae", "rules.2.video.fps",
        "rules.2.features.decay_rate",
    ]  # fmt: skip
    assert "less than or equal to 51 (got '99')" in lines[0]
    check_rules(spec({"video": {"crf": 20}}))


def test_a_sidecars_wrong_field_is_told_with_its_name():
    sidecar = build(Sidecar, {"video": {"crf": 99}})
    with pytest.raises(
        SpecError, match=r"^sidecar 2023/Live/a\.mp3\.asha\.yaml: video\.crf: Input"
    ):
        resolve(spec(), FACTS, sidecar)


@pytest.mark.parametrize(
    ("match", "may"),
    [
        ({}, True),
        ({"show": "x"}, True),
        ({"path": "a/*", "show": "x"}, True),
        ({"path": "b/*"}, False),
    ],
    ids=str,
)
def test_a_path_tells_which_rules_may_fit(match, may):
    assert may_fit(build(ShowRule, {"match": match}), "A/b.mp3") is may


def test_a_sidecar_is_read(tmp_path):
    file = tmp_path / "a.mp3.asha.yaml"
    file.write_text("title: 2023-05-01\nvideo: {crf: 20}\nskip: yes\n")
    found = read_sidecar(str(file))
    assert (found.title, found.video, found.skip) == ("2023-05-01", {"crf": 20}, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x" * (MAX_SPEC_BYTES + 1), "it is too large for one"),
        (b"\xff\xfe", "it is no text file"),
        (b"- a", "it must hold fields"),
        (b"crf: 20", "crf: Extra inputs are not permitted"),
        (b"version: 2", "version: Input should be 1"),
        (b"video: 3", "video must be a group of fields"),
    ],
    ids=["large", "binary", "list", "field", "newer", "group"],
)
def test_a_sidecar_that_is_none_is_told_with_its_name(tmp_path, content, message):
    file = tmp_path / "a.mp3.asha.yaml"
    file.write_bytes(content)
    with pytest.raises(SpecError, match=rf"a\.mp3\.asha\.yaml: (it is no spec: )?{message}"):
        read_sidecar(str(file))


def test_a_sidecar_that_is_gone_is_told(tmp_path):
    with pytest.raises(NotFoundError):
        read_sidecar(str(tmp_path / "x"))


RULE = {"match": {"path": "2023/*", "show": "Höhle"}, "video": {"crf": 20}}
OTHER = {"match": {"path": "2022/*"}, "video": {"crf": 20}}
VERSIONS = {"s3://b/m": "1", "s3://b/n": "1"}
BASE = SettingsDigests(spec(RULE, OTHER), VERSIONS).of(SOURCE)


@pytest.mark.parametrize(
    "same",
    [
        spec(RULE, {**OTHER, "video": {"crf": 21}}),
        spec(RULE),
        spec(RULE, OTHER, run={"workers": 3}, order="newest", limit=3, attempts=7),
        spec(RULE, OTHER, include="*.mp3", exclude="x"),
        spec({**RULE, "match": {"path": ["2023/*", "x"], "show": "Höhle"}}, OTHER),
        spec(RULE, OTHER, video={"sound": "copy", "crf": 18}, names="{path}"),
    ],
    ids=["other rule", "no other rule", "run", "choice", "path", "defaults"],
)
def test_what_does_not_concern_a_show_does_not_touch_it(same):
    """Else a word in a rule for one show would do 100,000 again."""
    assert SettingsDigests(same, VERSIONS).of(SOURCE) == BASE


@pytest.mark.parametrize(
    ("given", "source", "versions"),
    [
        (spec({**RULE, "video": {"crf": 21}}), SOURCE, VERSIONS),
        (spec({**RULE, "match": {"path": "2023/*", "show": "x"}}), SOURCE, VERSIONS),
        (spec(), SOURCE, VERSIONS),
        (spec(RULE, {}, {"skip": True}), SOURCE, VERSIONS),
        (spec(RULE, video={"crf": 19}), SOURCE, VERSIONS),
        (spec(RULE, features={"stem": "drums"}), SOURCE, VERSIONS),
        (spec(RULE, motion={"min_factor": 2}), SOURCE, VERSIONS),
        (spec(RULE, seed=0), SOURCE, VERSIONS),
        (spec(RULE, names="{id}"), SOURCE, VERSIONS),
        (spec(RULE, paths="{year}"), SOURCE, VERSIONS),
        (spec(RULE), SOURCE, {**VERSIONS, "s3://b/m": "2"}),
        (spec(RULE), replace(SOURCE, sidecar="1"), VERSIONS),
        (spec(RULE), replace(SOURCE, cue="1"), VERSIONS),
    ],
    ids=["rule", "match", "no rule", "new rule", "video", "features", "motion", "seed", "names",
         "paths", "model", "sidecar", "cue"],
)  # fmt: skip
def test_what_concerns_a_show_touches_it(given, source, versions):
    assert SettingsDigests(given, versions).of(source) != BASE


def test_models_and_keyframes_that_are_made_anew_touch_their_shows(archive):
    """A model is trained again under its old name more often than under a new one."""
    archive.put("../k.npy", b"1")
    archive.put("../other/config.json", b"1")
    rule = {
        "model": archive.model.parent / "other",
        "motion": {"keyframes": f"{archive.source}/../k.npy"},
    }
    given = archive.spec(rules=[rule])

    def digest():
        return SettingsDigests(given, model_versions(given)).of(SOURCE)

    digests = [digest(), digest()]
    assert digests[0] == digests[1]
    for name in ("model/config.json", "model/keyframes.npy", "other/model.safetensors", "k.npy"):
        archive.put(f"../{name}", b"anew")
        digests.append(digest())
    archive.put("../model/samples/1.png")
    assert digest() == digests[-1], "pictures of its progress are no part of a model"
    assert len(set(digests)) == 5


def test_a_model_that_was_moved_is_the_same():
    moved = spec(RULE, OTHER, model="s3://b/n")
    assert SettingsDigests(moved, VERSIONS).of(SOURCE) == BASE
