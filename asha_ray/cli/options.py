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
    str | None, typer.Option("--stems", help="Separate the sound first: none. [default: none]")
]
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
