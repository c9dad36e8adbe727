"""The options that commands share, named as in spec files."""

from typing import Annotated, Literal

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
