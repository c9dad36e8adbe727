"""The commands: they read options, call `asha_ray.api`, and tell a person what came of it."""

import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any, Literal, NoReturn

import psutil
import typer

import asha_ray
from asha_ray.cli import archive, jobs, options
from asha_ray.cli.answer import answer
from asha_ray.cli.plan import plan
from asha_ray.cli.progress import ConsoleProgress, shown
from asha_ray.errors import AshaError, SpecError

INTERRUPTED = 130
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
DEBUG = "--debug"

app = typer.Typer(
    help="Turn music into audio-reactive video with a model that learned an artist's images. "
    "Every path may be local or s3://.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:]
    debug = DEBUG in arguments
    for kind in STOP_SIGNALS:
        signal.signal(kind, _interrupt)
    try:
        code = app([item for item in arguments if item != DEBUG], standalone_mode=False)
        if code == INTERRUPTED:  # what Typer makes of Ctrl-C
            _interrupted()
    except Exception as error:
        if debug:
            raise
        code = _explain(error)
    except KeyboardInterrupt:
        if debug:
            raise
        code = _interrupted()
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: Exception) -> int:
    if isinstance(error, AshaError):
        _say(str(error))
        return error.exit_code
    if type(error).__name__ == "Abort":
        return _interrupted()
    if hasattr(error, "exit_code"):  # its own: wrong usage, or a wish to exit
        if hasattr(error, "show"):
            error.show()
        return int(error.exit_code)
    reason = " ".join(str(error).split())[:300]
    _say(f"unexpected {type(error).__name__}: {reason}; run it again with {DEBUG} and report it")
    return 1


def _interrupted() -> int:
    _say("interrupted; the same command goes on from what is finished")
    return INTERRUPTED


def _interrupt(*_: object) -> NoReturn:
    for kind in STOP_SIGNALS:
        signal.signal(kind, _stop_at_once)
    _say("stopping; once more stops at once, and loses nothing that is finished either")
    raise KeyboardInterrupt


def _stop_at_once(*_: object) -> NoReturn:
    # Encoders, and a Ray of our own, some of whose processes would outlive it by minutes. What is
    # left half written is known by its free lock, and swept by whoever comes next.
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    os._exit(INTERRUPTED)


def _say(message: str) -> None:
    sys.stderr.write(f"asha-ray: {shown(message)}\n")


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"asha-ray {asha_ray.__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show a traceback of any error.")] = False,
) -> None:
    """Every command says more with --help."""


@app.command()
def demo(
    out: Annotated[str, typer.Option("--out", help="Where everything goes.")] = "demo",
    as_json: options.Json = False,
) -> None:
    """Make art and music, train a small model, render: the whole flow, nothing downloaded."""
    progress = ConsoleProgress()
    result = asha_ray.demo(out, progress)
    progress.finish()
    answer(
        {**asdict(result.render), "images": result.images, "model": result.model},
        result.render.output,
        as_json=as_json,
    )


@app.command()
def train(
    images: Annotated[str, typer.Argument(help="A folder of images.")],
    out: Annotated[str, typer.Option("--out", help="The model directory.")],
    preset: Annotated[
        Literal["seed", "studio"] | None,
        typer.Option(help="The article's architecture, or a residual one. [default: seed]"),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="448 is square, or 1920x1080. [default: 448]")
    ] = None,
    fit: Annotated[
        Literal["crop", "pad", "stretch"] | None,
        typer.Option(help="How images are brought to that size. [default: crop]"),
    ] = None,
    latent: Annotated[int | None, typer.Option(help="Latent dimensions. [default: 200]")] = None,
    epochs: Annotated[
        int | None, typer.Option(help="0 writes an initialised model. [default: 100]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images a step, for each worker. [default: 16]")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="[default: 0.001]")] = None,
    schedule: Annotated[
        Literal["constant", "cosine"] | None,
        typer.Option(
            help="Keep the learning rate, or warm up and lower it to a tenth. [default: constant]"
        ),
    ] = None,
    kl_weight: Annotated[float | None, typer.Option(help="[default: 1]")] = None,
    encoder_filters: Annotated[
        str | None, typer.Option(help="Such as 32,64,128,256. [default: the preset's]")
    ] = None,
    decoder_filters: Annotated[
        str | None, typer.Option(help="Such as 256,128,64,32,16. [default: the preset's]")
    ] = None,
    keyframes_from: Annotated[
        Literal["mean", "sample"] | None, typer.Option(help="[default: mean]")
    ] = None,
    seed: options.Seed = None,
    workers: Annotated[int | None, typer.Option(help="Ray Train workers. [default: 1]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    as_json: options.Json = False,
) -> None:
    """Train a model on a folder of images, with Ray Train."""
    progress = ConsoleProgress()
    result = asha_ray.train(
        images,
        out=out,
        progress=progress,
        preset=preset,
        size=size,
        fit=fit,
        latent=latent,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule=schedule,
        kl_weight=kl_weight,
        encoder_filters=encoder_filters,
        decoder_filters=decoder_filters,
        keyframes_from=keyframes_from,
        seed=seed,
        workers=workers,
        resume=resume,
    )
    progress.finish()
    training = result.training
    answer(
        asdict(result),
        f"{result.output}: {result.images} images, {result.epochs} epochs, reconstructions at "
        f"{training['reconstruction_psnr_db']} dB (the mean image: "
        f"{training['mean_image_psnr_db']} dB)",
        as_json=as_json,
    )


@app.command()
def sample(
    model: options.ModelUri,
    out: Annotated[str, typer.Option("--out", help="A folder.")],
    source: Annotated[
        Literal["prior", "keyframes"], typer.Option("--from", help="What to draw from.")
    ] = "prior",
    count: Annotated[int, typer.Option(help="How many pictures.")] = 24,
    seed: options.Seed = None,
    as_json: options.Json = False,
) -> None:
    """Draw novel images, and a contact sheet of them."""
    progress = ConsoleProgress()
    result = asha_ray.sample(
        model=model, out=out, source=source, count=count, seed=seed or 0, progress=progress
    )
    progress.finish()
    answer(asdict(result), result.sheet, as_json=as_json)


@app.command()
def analyze(
    audio: Annotated[str, typer.Argument(help="A sound file.")],
    out: Annotated[str, typer.Option("--out", help="The features file (.npz).")],
    plot: Annotated[str | None, typer.Option(help="A picture of them (.png).")] = None,
    fps: options.Fps = None,
    stems: options.Stems = None,
    stem: options.Stem = None,
    stems_model: options.StemsModel = None,
    model_dir: options.ModelDir = None,
    normalise: options.Normalise = None,
    decay_time: options.DecayTime = None,
    decay_rate: options.DecayRate = None,
    decay_shape: options.DecayShape = None,
    executor: options.ExecutorName = None,
    work: options.Work = None,
    as_json: options.Json = False,
) -> None:
    """Onset strength, beats, levels and decay envelopes of a track."""
    progress = ConsoleProgress()
    features = asha_ray.analyze(
        audio,
        out=out,
        plot=plot,
        progress=progress,
        fps=fps,
        stems=stems,
        stem=stem,
        stems_model=stems_model,
        model_dir=model_dir,
        normalise=normalise,
        decay_time=decay_time,
        decay_rate=decay_rate,
        decay_shape=decay_shape,
        executor=executor,
        work=work,
    )
    progress.finish()
    summary = {
        "output": out,
        "plot": plot,
        "frames": features.num_frames,
        "fps": features.fps,
        "duration_s": features.duration_s,
        "beats": len(features.beat_frames),
        "tempo": round(features.tempo, 3),
        "stems": list(features.stems),
    }
    text = (
        f"{out}: {features.num_frames} frames, {summary['beats']} beats, {features.tempo:.0f} BPM"
    )
    answer(summary, text, as_json=as_json)


@app.command()
def stems(
    audio: Annotated[str | None, typer.Argument(help="A sound file.")] = None,
    out: Annotated[str | None, typer.Option("--out", help="A folder for the stems.")] = None,
    separator: Annotated[
        Literal["spleeter", "spleeter-tf", "hpss"] | None,
        typer.Option(help="By what. [default: spleeter where its model is, else hpss]"),
    ] = None,
    stems_model: options.StemsModel = None,
    model_dir: options.ModelDir = None,
    device: Annotated[
        Literal["cpu", "cuda", "mps"] | None,
        typer.Option(help="Where Spleeter's networks run. [default: cpu]"),
    ] = None,
    fetch: Annotated[
        Literal["2stems", "4stems", "5stems"] | None,
        typer.Option(help="Download a model of Spleeter's into the cache."),
    ] = None,
    setup_tf: Annotated[
        bool,
        typer.Option("--setup-tf", help="Build the environment of the spleeter package."),
    ] = False,
    executor: options.ExecutorName = None,
    work: options.Work = None,
    as_json: options.Json = False,
) -> None:
    """Take a track apart: drums, bass, vocals …, or harmonic and percussive."""
    progress = ConsoleProgress()
    document: dict[str, Any] = {}
    if (audio is None) != (out is None) or not (audio or fetch or setup_tf):
        raise SpecError("stems: give a sound file and --out, or --fetch or --setup-tf")
    if fetch:
        document["model"] = asha_ray.fetch_stems_model(fetch, progress=progress)
    if setup_tf:
        document["environment"] = asha_ray.setup_spleeter_tf(progress=progress)
    if audio is not None and out is not None:
        result = asha_ray.stems(
            audio,
            out=out,
            progress=progress,
            separator=separator,
            stems_model=stems_model,
            model_dir=model_dir,
            device=device,
            executor=executor,
            work=work,
        )
        document |= asdict(result)
    progress.finish()
    files = document.get("stems", {})
    named = [document[name] for name in ("model", "environment") if name in document]
    answer(document, "\n".join([*named, *files.values()]), as_json=as_json)


@app.command()
def path(
    features: Annotated[str, typer.Argument(help="A features file (.npz).")],
    model: options.ModelUri,
    out: Annotated[str, typer.Option("--out", help="The latents (.npy).")],
    motion: options.Motion = None,
    keyframes: options.Keyframes = None,
    keyframe_gap: options.KeyframeGap = None,
    min_factor: options.MinFactor = None,
    stem: options.Stem = None,
    seed: options.Seed = None,
    as_json: options.Json = False,
) -> None:
    """The latents that a render of these features would decode."""
    latents = asha_ray.path(
        features,
        model=model,
        out=out,
        motion=motion,
        keyframes=keyframes,
        keyframe_gap=keyframe_gap,
        min_factor=min_factor,
        stem=stem,
        seed=seed,
    )
    num_frames, latent_dim = latents.shape
    answer(
        {"output": out, "frames": num_frames, "latent": latent_dim},
        f"{out}: {num_frames} frames of {latent_dim} latents",
        as_json=as_json,
    )


@app.command()
@options.taking(options.RENDER)
def render(
    audio: Annotated[str | None, typer.Argument(help="A sound file.")] = None,
    as_json: options.Json = False,
    **given: Any,
) -> None:
    """Render a video: a track, a model, and how they meet."""
    progress = ConsoleProgress()
    result = asha_ray.render(audio, progress=progress, **given)
    progress.finish()
    answer(asdict(result), result.output, as_json=as_json)


@app.command()
def inspect(
    video: Annotated[str, typer.Argument(help="A finished video.")],
    decode: Annotated[
        bool, typer.Option("--decode/--no-decode", help="Decode and compare every frame.")
    ] = True,
    as_json: options.Json = False,
) -> None:
    """Check a finished video; exits with 1 when something is off."""
    from asha_ray.cli.report import inspection_document, inspection_text

    result = asha_ray.inspect(video, decode=decode)
    answer(inspection_document(video, result), inspection_text(video, result), as_json=as_json)
    if result.problems:
        raise typer.Exit(1)


@app.command()
def doctor(
    address: jobs.Address = None,
    token_file: jobs.TokenFile = None,
    work: jobs.WorkRoot = None,
    image: jobs.Image = None,
    as_json: options.Json = False,
) -> None:
    """What this machine has and lacks; with --address a cluster, from here and from a worker.

    Exits with 1 when something must be mended.
    """
    progress = ConsoleProgress()
    findings = asha_ray.doctor(
        progress=progress, address=address, token_file=token_file, work=work, image=image
    )
    progress.finish()
    width = max(len(finding.name) for finding in findings)
    lines = [
        f"{finding.name:<{width}}  {finding.value}"
        + (f"\n{'':<{width}}  -> {finding.remedy}" if finding.remedy else "")
        for finding in findings
    ]
    document = {"findings": [asdict(finding) for finding in findings]}
    answer(document, "\n".join(lines), as_json=as_json)
    if any(finding.remedy for finding in findings):
        raise typer.Exit(1)


@app.command()
def bench(
    model: Annotated[
        str | None, typer.Option(help="A model directory. [default: an initialised one, 448x448]")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="Of the video; may be given again. [default: 448, 1080p and 4K]"),
    ] = None,
    vs: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare: fp32, bf16, fp16, batch=8, threads=2, decoders=1, encoder-threads=4, "
            "codec=libx265, preset=fast, or some joined by commas; may be given again."
        ),
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Find and keep the fastest numerics of this machine.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A rough look.")] = False,
    as_json: options.Json = False,
) -> None:
    """How fast this machine decodes, converts, encodes and renders, and how near to its limit."""
    from asha_ray.cli.report import bench_text

    progress = ConsoleProgress()
    given = {"sizes": tuple(size)} if size else {}
    result = asha_ray.bench(
        model, **given, vs=tuple(vs or ()), tune=tune, quick=quick, progress=progress
    )
    progress.finish()
    answer(result.document(), bench_text(result), as_json=as_json)


@app.command()
def clean(
    work: Annotated[
        str, typer.Argument(help="A work folder: .asha beside a video, or what --work named.")
    ],
    delete: Annotated[
        bool, typer.Option("--delete", help="Really delete; without it nothing is touched.")
    ] = False,
    keep_days: Annotated[
        float,
        typer.Option(
            help="Days for which an unfinished render counts as needed after it was last heard "
            "of; 0 keeps only finished and running ones."
        ),
    ] = 7,
    as_json: options.Json = False,
) -> None:
    """List what no finished or running render needs of a work folder; with --delete, delete it.

    Exits with 1 when something should be deleted and it cannot be known what is needed.
    """
    from asha_ray.cli.report import clean_document, clean_text

    progress = ConsoleProgress()
    result = asha_ray.clean(work, delete=delete, keep_days=keep_days, progress=progress)
    progress.finish()
    answer(clean_document(result), clean_text(result), as_json=as_json)
    if result.blocked and delete:
        raise typer.Exit(1)


app.add_typer(archive.app, name="archive")
app.add_typer(jobs.app, name="jobs")
for command in (plan, jobs.submit, jobs.schema):
    app.command()(command)
for hidden in (jobs.drive, jobs.probe):
    app.command(hidden=True)(hidden)
