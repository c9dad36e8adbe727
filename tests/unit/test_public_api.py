"""The public contract, frozen: a failing test here means that users' scripts would break.

Adding is fine and done here too; renaming or removing needs a major version.
"""

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from pydantic import BaseModel

import asha_ray
from asha_ray import errors, spec
from asha_ray.cli.main import app

NAMES = """
ArchiveSpec AshaError RenderSpec TrainSpec __version__ analyze archive archive_forget
archive_report archive_retry archive_status bench cancel_job clean demo doctor fetch_stems_model
follow_job inspect job_log job_status list_jobs load_model path plan render retry_job sample
schema setup_spleeter_tf stems submit train
"""

SIGNATURES = {
    "analyze": "audio *out *plot *progress **options",
    "archive": "source *model *out *config *progress **options",
    "archive_forget": "output show *dry_run *progress",
    "archive_report": "output",
    "archive_retry": "output shows *progress",
    "archive_status": "output",
    "bench": "model *sizes *vs *tune *quick *progress",
    "cancel_job": "name **target",
    "clean": "work *delete *keep_days *progress",
    "demo": "out progress",
    "doctor": "*progress **target",
    "fetch_stems_model": "name *progress",
    "follow_job": "name **target",
    "inspect": "video *decode",
    "job_log": "name **target",
    "job_status": "name **target",
    "list_jobs": "*limit **target",
    "load_model": "uri",
    "path": "features *model *out **options",
    "plan": "what *model *out *config *workers *rates *rate *prices **options",
    "render": "audio *model *out *config *progress **options",
    "retry_job": "name *max_cost *progress **target",
    "sample": "*model *out *source *count *seed *progress",
    "schema": "kind",
    "setup_spleeter_tf": "*progress",
    "stems": "audio *out *progress **options",
    "submit": "spec *fields *max_cost *progress **target",
    "train": "images *out *progress **options",
}
"""Parameters in order; one star before those that are given by name only."""

COMMANDS = {
    "analyze": (
        "audio",
        "--decay-rate --decay-shape --decay-time --executor --fps --json --model-dir --normalise "
        "--out --plot --stem --stems --stems-model --work",
    ),
    "archive run": (
        "source",
        "--allow-mixed --attempts --chunk-seconds --codec --config --crf --decay-rate "
        "--decay-shape --decay-time --device --exclude --executor --fit --fps --fresh "
        "--gpus-per-worker --include --json --keyframe-gap --keyframes --limit --min-factor "
        "--model --model-dir --motion --names --normalise --order --out --paths --preset "
        "--priority --reuse --same-kind --seed --size --sound --stem --stems --stems-model --work "
        "--workers",
    ),
    "archive forget": ("output show", "--dry-run --json"),
    "archive report": ("output", "--json"),
    "archive retry": ("output shows", "--json"),
    "archive status": ("output", "--json"),
    "bench": ("", "--json --model --quick --size --tune --vs"),
    "clean": ("work", "--delete --json --keep-days"),
    "demo": ("", "--json --out"),
    "drive": ("job", "--attempt --work"),
    "doctor": ("", "--address --image --json --ship --token-file --work"),
    "inspect": ("video", "--decode --json --no-decode"),
    "path": (
        "features",
        "--json --keyframe-gap --keyframes --min-factor --model --motion --out --seed --stem",
    ),
    "plan": (
        "what",
        "--allow-mixed --chunk-seconds --codec --config --cpu-hour --crf --currency --decay-rate "
        "--decay-shape --decay-time --device --duration --episode --executor --fit --fps --fresh "
        "--gpu-hour --gpus-per-worker --json "
        "--keyframe-gap --keyframes --min-factor --model --model-dir --motion --normalise --out "
        "--preset --priority --rate --rates --reuse --same-kind --seed --show --size --sound "
        "--start --stem --stems --stems-model --work --workers",
    ),
    "render": (
        "audio",
        "--allow-mixed --chunk-seconds --codec --config --crf --decay-rate --decay-shape "
        "--decay-time --device --duration --episode --executor --fit --fps --fresh "
        "--gpus-per-worker --json "
        "--keyframe-gap --keyframes --min-factor --model --model-dir --motion --normalise --out "
        "--preset --priority --reuse --same-kind --seed --show --size --sound --start --stem "
        "--stems --stems-model --work --workers",
    ),
    "jobs cancel": ("job", "--address --json --token-file --work"),
    "jobs list": ("", "--json --limit --work"),
    "jobs logs": ("job", "--address --follow --json --token-file --work"),
    "jobs retry": (
        "job",
        "--address --follow --image --json --max-cost --ship --token-file --work",
    ),
    "jobs status": ("job", "--address --json --token-file --work"),
    "probe": ("name", "--seconds --work"),
    "sample": ("", "--count --from --json --model --out --seed"),
    "schema": ("kind", ""),
    "stems": (
        "audio",
        "--device --executor --fetch --json --model-dir --out --separator --setup-tf "
        "--stems-model --work",
    ),
    "submit": (
        "spec",
        "--address --follow --image --json --max-cost --own-disks --set --shared-disk --ship "
        "--token-file --work",
    ),
    "train": (
        "images",
        "--batch-size --decoder-filters --encoder-filters --epochs --fit --json "
        "--keyframes-from --kl-weight --latent --learning-rate --out --preset --resume "
        "--schedule --seed --size --workers",
    ),
}
"""Command -> its arguments and its options."""

FIELDS = {
    "RenderSpec": "version kind audio model output start duration seed show episode video "
    "features motion effects run",
    "VideoSettings": "size fit fps codec crf preset sound",
    "FeatureSettings": "stems stem stems_model model_dir normalise decay_time decay_rate "
    "decay_shape",
    "MotionSettings": "name keyframes keyframe_gap min_factor",
    "RunSettings": "executor device workers gpus_per_worker chunk_s work priority allow_mixed "
    "fresh",
    "TrainSpec": "version kind images output preset size fit latent epochs batch_size "
    "learning_rate schedule kl_weight encoder_filters decoder_filters keyframes_from seed run",
    "TrainRun": "workers resume",
    "AnalyzeSettings": "fps features executor work",
    "PathSettings": "motion stem seed",
    "StemsSettings": "separator stems_model model_dir device executor work",
    "Prices": "currency gpu_hour cpu_hour",
    "ArchiveSpec": "version kind source output model include exclude order limit names paths seed "
    "video features motion effects rules attempts run",
    "ArchiveVideoSettings": "size fit fps codec crf preset sound",
    "ShowMatch": "path show title artist album date min_duration max_duration",
    "ShowSettings": "skip model seed start duration video features motion",
    "ShowRule": "skip model seed start duration video features motion match",
    "Sidecar": "skip model seed start duration video features motion version show title artist "
    "album date",
}

OPTIONS = {
    "RENDER_OPTIONS": "allow_mixed audio chunk_seconds codec crf decay_rate decay_shape decay_time "
    "device duration episode executor fit fps fresh gpus_per_worker keyframe_gap keyframes "
    "min_factor model model_dir motion normalise out preset priority seed show size sound start "
    "stem stems stems_model work workers",
    "TRAIN_OPTIONS": "batch_size decoder_filters encoder_filters epochs fit images "
    "keyframes_from kl_weight latent learning_rate out preset resume schedule seed size workers",
    "ARCHIVE_OPTIONS": "allow_mixed attempts chunk_seconds codec crf decay_rate decay_shape "
    "decay_time device exclude executor fit fps fresh gpus_per_worker include keyframe_gap "
    "keyframes limit min_factor model model_dir motion names normalise order out paths preset "
    "priority seed size sound source stem stems stems_model work workers",
    "ANALYZE_OPTIONS": "decay_rate decay_shape decay_time executor fps model_dir normalise stem "
    "stems stems_model work",
    "PATH_OPTIONS": "keyframe_gap keyframes min_factor motion seed stem",
    "STEMS_OPTIONS": "device executor model_dir separator stems_model work",
}

DEFAULTS = """
version: 1
kind: render
audio: a
model: m
output: o
start: 0.0
duration: null
seed: 0
show: null
episode: null
video: {size: null, fit: crop, fps: '60', codec: libx264, crf: 18, preset: veryfast, sound: aac}
features: {stems: none, stem: mix, stems_model: null, model_dir: null, normalise: null,
  decay_time: 0.25, decay_rate: 0.25, decay_shape: constant}
motion: {name: seed-exponential, keyframes: null, keyframe_gap: 1.0, min_factor: 1.0}
effects: []
run: {executor: ray, device: auto, workers: null, gpus_per_worker: null, chunk_s: 10.0, work: null,
      priority: 0, allow_mixed: false, fresh: false}
"""


def test_the_exported_names_are_these():
    assert asha_ray.__all__ == NAMES.split()
    assert dir(asha_ray) == sorted(NAMES.split())


def test_every_exported_name_is_there_and_documented():
    values = {name: getattr(asha_ray, name) for name in NAMES.split()}
    assert isinstance(values.pop("__version__"), str)
    assert [name for name, value in values.items() if not inspect.getdoc(value)] == []


def test_no_exported_name_is_also_a_module():
    """Importing `asha_ray.demo.music` puts the module in the function's place, for good."""
    modules = {path.stem for path in Path(asha_ray.__file__).parent.iterdir()}
    assert modules & set(NAMES.split()) == set()


def test_a_name_that_is_not_exported_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'no_such_thing'"):
        _ = asha_ray.no_such_thing
    assert not hasattr(asha_ray, "np")


def test_public_functions_keep_their_parameters():
    marks = {"KEYWORD_ONLY": "*", "VAR_KEYWORD": "**"}
    found = {
        name: " ".join(
            marks.get(parameter.kind.name, "") + parameter.name
            for parameter in inspect.signature(getattr(asha_ray, name)).parameters.values()
        )
        for name in SIGNATURES
    }
    assert found == SIGNATURES


def test_commands_and_options_keep_their_names():
    commands = dict(typer.main.get_command(app).commands)
    for group in ("archive", "jobs"):
        inner = commands.pop(group).commands
        commands |= {f"{group} {name}": command for name, command in inner.items()}
    found = {
        name: (
            " ".join(p.name for p in command.params if p.param_type_name == "argument"),
            sorted(
                option
                for p in command.params
                if p.param_type_name == "option"
                for option in (*p.opts, *p.secondary_opts)
            ),
        )
        for name, command in commands.items()
    }
    assert found == {name: (args, text.split()) for name, (args, text) in COMMANDS.items()}
    general = [option for p in typer.main.get_command(app).params for option in p.opts]
    assert general == ["--version", "--debug"]


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("plan", "RENDER_OPTIONS"),
        ("render", "RENDER_OPTIONS"),
        ("archive", "ARCHIVE_OPTIONS"),
        ("train", "TRAIN_OPTIONS"),
        ("analyze", "ANALYZE_OPTIONS"),
        ("path", "PATH_OPTIONS"),
        ("stems", "STEMS_OPTIONS"),
    ],
)
def test_every_command_line_option_is_a_keyword_in_python(command, options):
    """What `asha-ray` can do, a Python user can do, under the same name."""
    taken = set(inspect.signature(getattr(asha_ray, command)).parameters)
    known = taken | set(getattr(spec, options)) | {"json"}
    if command == "stems":  # functions of their own: asha_ray.fetch_stems_model, setup_spleeter_tf
        known |= {"fetch", "setup_tf"}
    if command == "plan":  # all in `prices`
        known |= {"cpu_hour", "gpu_hour", "currency"}
    arguments, names = COMMANDS["archive run" if command == "archive" else command]
    flat = {name.removeprefix("--").replace("-", "_") for name in names.split()}
    flat -= {"same_kind", "reuse"}  # the other words of --allow-mixed and --fresh
    assert {*flat, *arguments.split()} <= known


def test_plan_takes_all_that_render_takes():
    """Who wants to know what a render would take changes one word of its command."""
    assert set(COMMANDS["render"][1].split()) < set(COMMANDS["plan"][1].split())


def test_spec_fields_keep_their_names():
    found = {name: list(getattr(spec, name).model_fields) for name in FIELDS}
    assert found == {name: names.split() for name, names in FIELDS.items()}


def test_every_spec_model_is_frozen_here():
    models = {
        name
        for name, value in vars(spec).items()
        if isinstance(value, type) and issubclass(value, BaseModel) and name[0] != "_"
    } - {"BaseModel"}
    assert models == set(FIELDS)


@pytest.mark.parametrize("name", OPTIONS)
def test_keyword_options_keep_their_names(name):
    assert sorted(getattr(spec, name)) == OPTIONS[name].split()


def test_defaults_stay_as_they_are():
    """A changed default changes what an old command renders; hashes leave defaults out."""
    found = spec.RenderSpec(audio="a", model="m", output="o").model_dump(mode="json")
    assert found == yaml.safe_load(DEFAULTS)


def test_the_error_tree_is_as_its_docstring_draws_it():
    drawn: dict[str, str] = {}
    trail: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([│├└─ ]*)([A-Z]\w+Error)\b", line)
        if match:
            depth = len(match[1]) // 4
            trail[depth:] = [match[2]]
            drawn[match[2]] = trail[depth - 1] if depth else "Exception"
    classes = {
        name: value.__bases__[0].__name__
        for name, value in vars(errors).items()
        if isinstance(value, type)
    }
    assert drawn == classes


@pytest.mark.parametrize(
    ("name", "exit_code"),
    [
        *((name, 1) for name in ("AshaError", "StorageError", "EncodeError", "FarmError")),
        *((name, 2) for name in ("InputError", "SpecError", "AudioError", "ImageError")),
        *((name, 2) for name in ("ModelError", "FeaturesError", "VideoError", "NotFoundError")),
        ("CheckError", 1),
        ("ResourceError", 2),
    ],
)
def test_exit_codes_tell_bad_input_from_failure(name, exit_code):
    assert getattr(errors, name).exit_code == exit_code


def test_importing_the_package_imports_nothing_heavy():
    """`asha-ray --version` and every --help would take seconds."""
    heavy = ["torch", "ray", "librosa", "boto3", "matplotlib", "scipy", "av", "numpy"]
    code = (
        "import sys, asha_ray; asha_ray.__version__; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_the_command_line_imports_nothing_heavy_before_a_command_runs():
    code = (
        "import sys, asha_ray.cli.main; "
        "print([name for name in ('torch', 'ray', 'librosa', 'boto3') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_the_version_is_that_of_the_distribution():
    project = Path(asha_ray.__file__).parents[1] / "pyproject.toml"
    assert asha_ray.__version__ == tomllib.loads(project.read_text())["project"]["version"]
