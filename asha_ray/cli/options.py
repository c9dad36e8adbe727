"""The options that commands share, named as in spec files."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import typer

Json = Annotated[bool, typer.Option("--json", help="Put one JSON document on stdout.")]
ModelUri = Annotated[str, typer.Option("--model", help="A model directory.")]
ExecutorName = Annotated[
    Literal["ray", "serial"] | None,
    typer.Option("--executor", help="Where the work is done. [default: ray]"),
]
Seed = Annotated[int | None, typer.Option("--seed", help="[default: 0]")]
Fps = Annotated[
    str | None, typer.Option("--fps", help="24, 25, 30, 60, 30000/1001 … [default: 60]")
]
Stems = Annotated[
    Literal["none", "hpss", "spleeter", "spleeter-tf"] | None,
    typer.Option("--stems", help="Take the sound apart first. [default: as --stem needs]"),
]
Stem = Annotated[
    str | None,
    typer.Option(
        "--stem",
        help="What drives the motion: mix, drums, bass, vocals, other, piano, accompaniment "
        "(by Spleeter), harmonic, percussive (by hpss). [default: mix]",
    ),
]
StemsModel = Annotated[
    Literal["2stems", "4stems", "5stems"] | None,
    typer.Option("--stems-model", help="Spleeter's model. [default: the stem's, else 4stems]"),
]
ModelDir = Annotated[
    str | None,
    typer.Option("--model-dir", help="Where Spleeter's model lies. [default: the cache]"),
]
Normalise = Annotated[
    Literal["track", "rolling"] | None,
    typer.Option(
        "--normalise",
        help="By the loudest moment of the track, or by how loud it is around. "
        "[default: track up to 20 minutes, rolling above]",
    ),
]
Work = Annotated[str | None, typer.Option("--work", help="Keep the work here, to use it again.")]
DecayTime = Annotated[
    float | None,
    typer.Option("--decay-time", help="Seconds of a linear decay from 1 to 0. [default: 0.25]"),
]
DecayRate = Annotated[
    float | None,
    typer.Option(
        "--decay-rate",
        help="What an exponential decay loses per frame at 60 fps. [default: 0.25]",
    ),
]
DecayShape = Annotated[
    Literal["constant", "proportional"] | None,
    typer.Option(
        "--decay-shape",
        help="Slope of the linear decay: the same for all beats, or as strong as the beat. "
        "[default: constant]",
    ),
]
Motion = Annotated[
    Literal["seed-linear", "seed-exponential"] | None,
    typer.Option("--motion", help="[default: seed-exponential]"),
]
Keyframes = Annotated[
    str | None,
    typer.Option("--keyframes", help="Latents to visit (.npy) [default: the model's own]"),
]
KeyframeGap = Annotated[
    float | None,
    typer.Option("--keyframe-gap", help="Seconds from keyframe to keyframe. [default: 1]"),
]
MinFactor = Annotated[
    float | None,
    typer.Option("--min-factor", help="Divides the envelope; less leaps further. [default: 1]"),
]

RENDER: Mapping[str, Any] = {
    "model": Annotated[str | None, typer.Option(help="A model directory.")],
    "out": Annotated[str | None, typer.Option("--out", help="The video (.mp4).")],
    "config": Annotated[
        str | None, typer.Option(help="A spec file (YAML); other options override it.")
    ],
    "work": Annotated[
        str | None, typer.Option(help="Where segments are kept. [default: .asha beside the output]")
    ],
    "fps": Fps,
    "size": Annotated[str | None, typer.Option(help="1920x1080 … [default: the model's own]")],
    "fit": Annotated[
        Literal["crop", "pad", "stretch"] | None,
        typer.Option(help="How pictures are brought to that size. [default: crop]"),
    ],
    "motion": Motion,
    "keyframes": Keyframes,
    "keyframe_gap": KeyframeGap,
    "min_factor": MinFactor,
    "stems": Stems,
    "stem": Stem,
    "stems_model": StemsModel,
    "model_dir": ModelDir,
    "normalise": Normalise,
    "decay_time": DecayTime,
    "decay_rate": DecayRate,
    "decay_shape": DecayShape,
    "seed": Seed,
    "start": Annotated[float | None, typer.Option(help="Begin at this second. [default: 0]")],
    "duration": Annotated[
        float | None, typer.Option(help="Seconds. [default: to the end of the track]")
    ],
    "chunk_seconds": Annotated[
        float | None, typer.Option(help="Length of the pieces of work. [default: 10]")
    ],
    "show": Annotated[
        str | None,
        typer.Option(help="The series it belongs to: its renders visit one family of keyframes."),
    ],
    "episode": Annotated[
        str | None, typer.Option(help="A date or a name, which moves the show's tour on.")
    ],
    "codec": Annotated[
        Literal["libx264", "libx265", "libsvtav1", "h264_nvenc", "hevc_nvenc", "av1_nvenc", "auto"]
        | None,
        typer.Option(help="The encoder; auto takes the GPU's where it has one. [default: libx264]"),
    ],
    "crf": Annotated[
        int | None, typer.Option(help="Quality: less is better, 0 is lossless. [default: 18]")
    ],
    "preset": Annotated[str | None, typer.Option(help="Speed of the encoder. [default: veryfast]")],
    "sound": Annotated[
        Literal["aac", "copy"] | None,
        typer.Option(
            help="Encode the track, or copy it as it is where an mp4 takes it. [default: aac]"
        ),
    ],
    "executor": ExecutorName,
    "workers": Annotated[
        int | None, typer.Option(help="Workers on Ray. [default: what the cluster holds]")
    ],
    "device": Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        typer.Option(help="What decodes. [default: auto, a GPU where there is one]"),
    ],
    "gpus_per_worker": Annotated[
        float | None,
        typer.Option(
            help="GPUs that each worker reserves on Ray: 0.25, 0.5, 1 … [default: as many workers "
            "share a GPU as its node has cores for]"
        ),
    ],
    "priority": Annotated[
        int | None,
        typer.Option(help="On a cluster that others use, higher goes first. [default: 0]"),
    ],
    "allow_mixed": Annotated[
        bool | None,
        typer.Option(
            "--allow-mixed/--same-kind",
            help="Let workers of different kinds of devices share a render. [default: same-kind]",
        ),
    ],
    "fresh": Annotated[
        bool | None,
        typer.Option(
            "--fresh/--reuse", help="Render every chunk again, whatever is there. [default: reuse]"
        ),
    ],
}
"""All that says how a render is done; each is None where it is not given."""

OF_ONE_TRACK = frozenset({"start", "duration", "show", "episode"})

ARCHIVE: Mapping[str, Any] = {
    **{name: kind for name, kind in RENDER.items() if name not in OF_ONE_TRACK},
    "out": Annotated[str | None, typer.Option("--out", help="A folder or prefix for the videos.")],
    "work": Annotated[
        str | None, typer.Option(help="Where segments are kept. [default: .asha in the output]")
    ],
    "sound": Annotated[
        Literal["copy", "aac"] | None,
        typer.Option(
            help="Copy the sound as it is where an mp4 takes it, or encode it. [default: copy]"
        ),
    ],
    "seed": Annotated[
        int | None, typer.Option("--seed", help="Of all shows. [default: each series' own]")
    ],
    "include": Annotated[
        list[str] | None,
        typer.Option(help="Only paths like this, such as 'jazz/*.mp3'; may be given again."),
    ],
    "exclude": Annotated[
        list[str] | None, typer.Option(help="No paths like this; may be given again.")
    ],
    "order": Annotated[
        Literal["path", "newest", "largest"] | None,
        typer.Option(help="What comes first. [default: path]"),
    ],
    "limit": Annotated[int | None, typer.Option(min=1, help="So many shows at most.")],
    "names": Annotated[
        str | None,
        typer.Option(
            help="What videos are called, such as '{show}/{date} {title}'. [default: {path}]"
        ),
    ],
    "paths": Annotated[
        list[str] | None,
        typer.Option(
            help="What paths say where tags say nothing, such as '{show}/{date}_{title}'; may be "
            "given again."
        ),
    ],
    "attempts": Annotated[int | None, typer.Option(help="How often a show is tried. [default: 3]")],
}
"""All that says how an archive is done; each is None where it is not given."""

Command = TypeVar("Command", bound=Callable[..., None])


def taking(group: Mapping[str, Any]) -> Callable[[Command], Command]:
    """Let a command take a group of options as `**given`, after its arguments."""

    def widen(command: Command) -> Command:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        # As Typer reads them from the signature, it needs no words for each in the code.
        given = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for name, kind in group.items()
        ]
        keyword = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name == "as_json"]
        first = [p for p in own if p.name != "as_json"]
        command.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*first, *given, *keyword]
        )
        return command

    return widen
