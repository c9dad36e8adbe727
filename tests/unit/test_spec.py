"""Specs: what a user may write, and what each mistake is answered with."""

from contextlib import suppress
from fractions import Fraction

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from asha_ray import api, spec
from asha_ray.errors import SpecError
from asha_ray.spec import (
    ANALYZE_OPTIONS,
    PATH_OPTIONS,
    RENDER_OPTIONS,
    TRAIN_OPTIONS,
    AnalyzeSettings,
    PathSettings,
    RenderSpec,
    TrainSpec,
    build,
    parse_fps,
    parse_size,
    parse_yaml,
    with_options,
)

PLACES = {"audio": "a.wav", "model": "m", "output": "v.mp4"}


@pytest.mark.parametrize(
    ("text", "fps"),
    [
        ("60", Fraction(60)),
        (24, Fraction(24)),
        (" 25 ", Fraction(25)),
        ("30000/1001", Fraction(30000, 1001)),
        ("29.97", Fraction(30000, 1001)),
        (29.97, Fraction(30000, 1001)),
        ("23.976", Fraction(24000, 1001)),
        ("59.94", Fraction(60000, 1001)),
        (30.0, Fraction(30)),
        ("12.5", Fraction(25, 2)),
        (Fraction(50), Fraction(50)),
    ],
)
def test_frame_rates_are_read_exactly(text, fps):
    """29.97 read as a decimal would drift by a frame in nine hours, and miss every boundary."""
    assert parse_fps(text) == fps


@pytest.mark.parametrize("text", ["", "fast", "0", "-24", "1001", "30/0", "nan", "inf", "1/2/3"])
def test_what_is_no_frame_rate_is_refused(text):
    with pytest.raises(ValueError, match="frame rate"):
        parse_fps(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("448", (448, 448)),
        (448, (448, 448)),
        ("1920x1080", (1920, 1080)),
        ("1920X1080", (1920, 1080)),
        ("1920 × 1080", (1920, 1080)),
        ((64, 48), (64, 48)),
        ([64, 48], (64, 48)),
    ],
)
def test_sizes_are_width_then_height(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "x", "1920x", "x1080", "-4x4", "16385", "1x2x3", "4.5", "64x0", (1, 2, 3)]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match=r"size|side"):
        parse_size(text)


def test_all_wrong_fields_are_named_at_once_with_their_paths():
    """Showing the first mistake only makes a user run once per mistake."""
    wrong = {
        **PLACES,
        "seed": -1,
        "colour": "blue",
        "video": {"fps": "fast", "crf": 99, "size": "big"},
        "features": {"decay_shape": "round", "decay_time": 0},
        "motion": {"name": "wild", "keyframe_gap": "nan"},
        "run": {"workers": 0},
    }
    del wrong["audio"]
    with pytest.raises(SpecError) as caught:
        build(RenderSpec, wrong, "spec x.yaml")
    text = str(caught.value)
    assert text.startswith("spec x.yaml: ")
    for path in (
        *("audio", "seed", "colour", "video.fps", "video.crf", "video.size"),
        *("features.decay_shape", "features.decay_time", "motion.name", "motion.keyframe_gap"),
        "run.workers",
    ):
        assert f"{path}: " in text, f"{path} is not named in {text}"
    assert "'constant' or 'proportional'" in text  # what would be accepted
    assert caught.value.exit_code == 2
    assert isinstance(caught.value.__cause__, ValidationError)


@pytest.mark.parametrize("size", ["449", "448x447", "447x448", "1x1"])
def test_an_odd_video_size_is_refused_with_an_even_one_to_try(size):
    with pytest.raises(SpecError, match=r"video.*even sides; try \d*[02468]x\d*[02468]$"):
        build(RenderSpec, {**PLACES, "video": {"size": size}})


def test_an_odd_size_is_named_together_with_other_mistakes_of_its_group():
    """A check of the whole group runs only once its fields are right, and hides the odd size."""
    with pytest.raises(SpecError, match=r"(?s)crf.*even sides|even sides.*crf"):
        build(RenderSpec, {**PLACES, "video": {"size": "449", "crf": 99}})


@pytest.mark.parametrize("kind", [RenderSpec, TrainSpec])
def test_an_odd_training_size_is_fine_but_a_typo_is_not(kind):
    spec = build(TrainSpec, {"images": "i", "output": "m", "size": "449"})
    assert spec.size == "449x449"
    with pytest.raises(SpecError, match="typo"):
        build(kind, {**PLACES, "images": "i", "typo": 1})


def test_a_spec_cannot_be_changed():
    spec = build(RenderSpec, PLACES)
    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 3


@pytest.mark.parametrize("value", [None, [1, 2], {"a": 1}], ids=repr)
@pytest.mark.parametrize("field", ["audio", "model", "output"])
def test_a_path_that_was_left_empty_is_refused(field, value):
    """`audio:` without a value in YAML is None, which must not become a file called 'None'."""
    with pytest.raises(SpecError, match=field):
        build(RenderSpec, {**PLACES, field: value})


def test_paths_may_be_path_objects_but_hold_no_null_byte(tmp_path):
    assert build(RenderSpec, {**PLACES, "audio": tmp_path}).audio == str(tmp_path)
    with pytest.raises(SpecError, match="null byte"):
        build(RenderSpec, {**PLACES, "audio": "a\0b"})
    with pytest.raises(SpecError, match="audio"):
        build(RenderSpec, {**PLACES, "audio": ""})


def test_optional_fields_may_be_none():
    spec = build(
        RenderSpec,
        {
            **PLACES,
            "duration": None,
            "video": {"size": None},
            "motion": {"keyframes": None},
            "run": {"work": None, "workers": None},
        },
    )
    assert (spec.run.work, spec.motion.keyframes, spec.video.size) == (None, None, None)
    assert spec == build(RenderSpec, PLACES)


def test_equal_settings_written_differently_are_one_spec():
    """The spec is hashed: `448` and `448x448`, `29.97` and `30000/1001` must not render twice."""
    one = build(RenderSpec, {**PLACES, "video": {"size": 448, "fps": "29.97"}})
    other = build(RenderSpec, {**PLACES, "video": {"size": "448x448", "fps": "30000/1001"}})
    assert one == other
    assert (one.video.size, one.video.fps) == ("448x448", "30000/1001")


def test_options_override_a_file_and_absent_ones_do_not():
    data = {**PLACES, "video": {"crf": 30, "fps": "24"}, "seed": 5}
    options = {"crf": 20, "fps": None, "motion": "seed-linear", "chunk_seconds": 2.5, "out": "w"}
    spec = build(RenderSpec, with_options(data, options, RENDER_OPTIONS))
    assert (spec.video.crf, spec.video.fps, spec.seed) == (20, "24", 5)
    assert (spec.motion.name, spec.run.chunk_s, spec.output) == ("seed-linear", 2.5, "w")
    assert data["video"] == {"crf": 30, "fps": "24"}, "the caller's data was changed"


def test_a_false_option_is_given_while_none_is_not():
    data = {"images": "i", "output": "m", "run": {"resume": True}}
    spec = build(TrainSpec, with_options(data, {"resume": False, "seed": 0}, TRAIN_OPTIONS))
    assert spec.run.resume is False


def test_an_unknown_option_is_answered_with_those_there_are():
    with pytest.raises(SpecError, match=r"no option 'speed'; there are .*chunk_seconds.*crf"):
        with_options({}, {"speed": 3}, RENDER_OPTIONS)


@pytest.mark.parametrize("group", [None, "big", [1]], ids=repr)
def test_an_option_laid_over_what_is_no_group_is_a_spec_error(group):
    """`render(config={"video": None}, crf=20)` must not end in a TypeError."""
    with pytest.raises(SpecError, match="video"):
        build(RenderSpec, with_options({**PLACES, "video": group}, {"crf": 3}, RENDER_OPTIONS))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (RENDER_OPTIONS, RenderSpec),
        (TRAIN_OPTIONS, TrainSpec),
        (ANALYZE_OPTIONS, AnalyzeSettings),
        (PATH_OPTIONS, PathSettings),
    ],
    ids=["render", "train", "analyze", "path"],
)
def test_every_option_leads_to_a_field(options, kind):
    for name, path in options.items():
        model = kind
        *groups, last = path.split(".")
        for group in groups:
            model = type(model.model_fields[group].default)
        assert last in model.model_fields, f"option {name} leads nowhere: {path}"


def test_shares_of_gpus_are_those_that_ray_can_give():
    for right in (0.25, 0.5, 1, 2):
        spec = build(RenderSpec, {**PLACES, "run": {"gpus_per_worker": right}})
        assert spec.run.gpus_per_worker == right
    with pytest.raises(SpecError, match=r"run\.gpus_per_worker: 1\.5 is no share of GPUs that Ray"):
        build(RenderSpec, {**PLACES, "run": {"gpus_per_worker": 1.5}})
    for wrong in (0, -1, "many", float("nan"), float("inf")):
        with pytest.raises(SpecError, match=r"run\.gpus_per_worker"):
            build(RenderSpec, {**PLACES, "run": {"gpus_per_worker": wrong}})


def test_filters_are_read_from_text_and_from_lists():
    base = {"images": "i", "output": "m"}
    assert build(TrainSpec, {**base, "encoder_filters": "8, 16"}).encoder_filters == (8, 16)
    assert build(TrainSpec, {**base, "decoder_filters": [8, 16]}).decoder_filters == (8, 16)
    for wrong in ("8,x", "", "0", []):
        with pytest.raises(SpecError, match="encoder_filters"):
            build(TrainSpec, {**base, "encoder_filters": wrong})


def test_yaml_is_read_as_plain_data():
    text = "version: 1\nkind: render\naudio: a.wav\nvideo: {crf: 20, fps: 30000/1001}\n"
    assert parse_yaml(text, "r.yaml")["video"] == {"crf": 20, "fps": "30000/1001"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("audio: [", "no valid YAML"),
        ("- a\n- b\n", "must hold fields"),
        ("", "must hold fields"),
        ("just words", "must hold fields"),
        ("video: 7", "video must be a group"),
        ("run:", "run must be a group"),
        ("!!python/object/apply:os.system [echo]", "no valid YAML"),
    ],
)
def test_a_broken_spec_file_is_named_with_the_reason(text, reason):
    with pytest.raises(SpecError, match=reason) as caught:
        parse_yaml(text, "r.yaml")
    assert str(caught.value).startswith("reading spec r.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"version": 2}, {"kind": "train"}])
def test_another_version_or_kind_is_refused(change):
    with pytest.raises(SpecError, match=next(iter(change))):
        build(RenderSpec, {**PLACES, **change})


ALIAS_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{ALIAS_BOMB}video: {{crf: *a8}}", r"line 2.*alias|alias.*line 2"),
        ("effects: &e [*e]", "alias"),
        ("effects: " + "[" * 20_000, "nested too deep"),
        ("video: " + "{crf: " * 5000, "nested too deep"),
        ("seed: " + "9" * 5000, "no valid YAML: .*digits"),
        ("start: " + "59:" * 20_000 + "1.5", "too large"),
        ("audio: 2023-99-99", "month"),
        ("start: 2023-01-01T25:61:61Z", "hour"),
        ("seed: 1\nseed: 2", r"seed is there twice.*line 2"),
        ("video: {crf: 1, fps: 24, crf: 2}", "crf is there twice"),
        ("# " + "x" * 100_000, "64 kB"),
        ("audio: !!python/object/apply:os.system [id]", "could not determine a constructor"),
    ],
    ids=[
        "alias bomb", "cycle", "deep list", "deep mapping", "many digits", "base 60", "no month",
        "no hour", "field twice", "nested field twice", "large", "tag",
    ],
)  # fmt: skip
def test_a_hostile_spec_is_refused_in_a_line(text, reason):
    """Aliases of aliases would be 10^9 fields, and a number's digits a traceback."""
    with pytest.raises(SpecError, match=reason) as caught:
        build(RenderSpec, {**parse_yaml(text, "r.yaml"), **PLACES})
    assert str(caught.value).startswith("reading spec r.yaml: ")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text",
    [
        "seed: 0x" + "f" * 5000,
        "video: {size: " + "x" * 60_000 + "}",
        "video: {codec: " + "x" * 60_000 + "}",
        "x" * 1000 + ": 1",
        "\n".join(f"k{number}: 1" for number in range(5000)),
    ],
    ids=["hex", "size", "codec", "name", "names"],
)
def test_an_error_quotes_no_more_than_a_line(text):
    with pytest.raises(SpecError) as caught:
        build(RenderSpec, {**parse_yaml(text, "r.yaml"), **PLACES}, "r.yaml")
    assert max(len(line) for line in str(caught.value).splitlines()) < 500
    assert len(str(caught.value).splitlines()) <= 21


@settings(max_examples=300, deadline=None)
@given(
    st.text(
        st.sampled_from("0123456789abcdefx_:.-+eETZ&*!~|>%@?#,[]{}<\"'\\\n \x1b\x85"), max_size=40
    )
)
def test_any_text_is_data_or_an_error_of_ours(text):
    """PyYAML answers some texts with Python's own errors, which would be tracebacks."""
    with suppress(SpecError):
        parse_yaml(text, "r.yaml")


def test_a_large_spec_is_not_even_read(tmp_path):
    path = tmp_path / "r.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SpecError, match=r"r\.yaml: it is too large .*right file"):
        api.render(config=path)


class TestJobs:
    def test_a_job_is_what_its_kind_says(self):
        render = {"audio": "a", "model": "m", "output": "o"}
        assert spec.build_job(render) == RenderSpec(**render)
        train = {"kind": "train", "images": "i", "output": "o"}
        assert spec.build_job(train) == TrainSpec(images="i", output="o")

    @pytest.mark.parametrize("kind", ["sing", None, 3, ["render"]])
    def test_a_kind_that_is_none_is_told_with_those_that_are(self, kind):
        with pytest.raises(SpecError, match=r"kind: .*there are render, train"):
            spec.build_job({"kind": kind})

    def test_wrong_fields_are_named_by_their_path(self):
        data = {"kind": "render", "audio": "a", "model": "m", "output": "o", "video": {"crf": 99}}
        with pytest.raises(SpecError, match=r"video\.crf: .*less than or equal to 51"):
            spec.build_job(data)

    @pytest.mark.parametrize(
        ("assignments", "expected"),
        [
            (["seed=7"], {"seed": 7}),
            (["video.crf=20", "video.fps=30000/1001"], {"video": {"crf": 20, "fps": "30000/1001"}}),
            (["run.workers="], {"run": {"workers": None}}),
            (["audio=s3://b/a = b.wav"], {"audio": "s3://b/a = b.wav"}),
            (["encoder_filters=[8, 16]"], {"encoder_filters": [8, 16]}),
        ],
    )
    def test_fields_are_set_by_their_path(self, assignments, expected):
        assert spec.with_fields({}, assignments) == expected

    def test_what_is_set_replaces_what_the_file_says_and_nothing_else(self):
        data = {"seed": 1, "video": {"crf": 18, "fps": 24}}
        assert spec.with_fields(data, ["video.crf=30"]) == {
            "seed": 1,
            "video": {"crf": 30, "fps": 24},
        }
        assert data["video"]["crf"] == 18

    @pytest.mark.parametrize("assignment", ["crf", "=3", "video.=3", ".crf=3", "seed.x=3"])
    def test_what_is_no_assignment_is_told(self, assignment):
        with pytest.raises(SpecError, match="--set"):
            spec.with_fields({"seed": 1}, [assignment])


@pytest.fixture(scope="module")
def editor():
    """What an editor checks a file with."""
    schema = spec.job_schema()
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


class TestSchema:
    FILES = (
        {"version": 1, "kind": "render", "audio": "a", "model": "m", "output": "o"},
        {
            "audio": "a", "model": "m", "output": "o",
            "video": {"size": 448, "fps": 29.97, "crf": 20}, "run": {"workers": 4},
        },
        {"kind": "train", "images": "i", "output": "o", "size": "448x448", "encoder_filters": [8]},
        {"kind": "train", "images": 2023, "output": "o", "size": 448, "encoder_filters": "8,16"},
    )  # fmt: skip
    WRONG = (
        {"kind": "render", "model": "m", "output": "o"},
        {"kind": "render", "audio": "a", "model": "m", "output": "o", "sparkle": 1},
        {"kind": "train", "images": "i", "output": "o", "epochs": -1},
        {"kind": "render", "audio": "a", "model": "m", "output": "o", "video": {"codec": "gif"}},
    )

    @pytest.mark.parametrize("data", FILES)
    def test_what_is_read_is_what_an_editor_accepts(self, editor, data):
        """An editor that marks `size: 448` as wrong teaches people to ignore it."""
        spec.build_job(data)
        editor.validate(data)

    @pytest.mark.parametrize("data", WRONG)
    def test_what_is_refused_is_what_an_editor_marks(self, editor, data):
        with pytest.raises(SpecError):
            spec.build_job(data)
        with pytest.raises(jsonschema.ValidationError):
            editor.validate(data)

    def test_it_may_be_of_one_kind(self):
        assert "images" in spec.job_schema("train")["properties"]
        with pytest.raises(SpecError, match="no kind 'sing'"):
            spec.job_schema("sing")
