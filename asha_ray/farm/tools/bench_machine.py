"""What a render takes beside its frames, measured: its start, listening, joining."""

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from fractions import Fraction
from itertools import repeat
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from asha_ray import ffmpeg
from asha_ray.audio.decode import heard_blocks
from asha_ray.audio.parallel import Spread
from asha_ray.errors import FarmError
from asha_ray.farm.cores import cpu_threads
from asha_ray.farm.listening.analysis import AnalysisJob, analyze_uri
from asha_ray.farm.rendering.executor import SerialExecutor
from asha_ray.farm.rendering.plan import ENCODER_THREADS
from asha_ray.farm.tools.rates import MachineRate
from asha_ray.progress import NullProgress, Progress
from asha_ray.scratch import scratch_folder
from asha_ray.vae.architecture import architecture_of, build
from asha_ray.vae.model_dir import write_model
from asha_ray.values import EncoderSettings
from asha_ray.video.encode import encode_segment
from asha_ray.video.probe import probe
from asha_ray.video.sound import encode_audio
from asha_ray.video.stitch import stitch

SAMPLE_RATE = 44_100
FPS = 60
SOUND_S, QUICK_SOUND_S = 60, 20
MOMENT_S = 0.1
"""Of the render whose time is its start: a few frames of 32×32."""
SIZE = (32, 32)
EXECUTORS: tuple[Literal["serial", "ray"], ...] = ("serial", "ray")
PATIENCE_S = 300


def measure_machine(
    kind: str, model: str | None, *, quick: bool, progress: Progress | None = None
) -> MachineRate:
    """How long this machine takes for what is no frame.

    Args:
        kind: of device that renders.
        model: a model directory whose loading counts; a tiny one where None.
        quick: with less sound.
        progress: hears of each step.

    Raises:
        FarmError: if nothing can be rendered here, not even in one process.
    """
    progress = progress or NullProgress()
    steps = ("listening", "joining", *EXECUTORS)
    progress.stage("measuring what a render takes beside its frames", len(steps), "steps")
    with scratch_folder("bench") as folder:
        seconds = QUICK_SOUND_S if quick else SOUND_S
        sound, moment = folder / "sound.wav", folder / "moment.wav"
        write_sound(sound, seconds)
        write_sound(moment, MOMENT_S)
        listen = seconds / _listening_s(moment, sound)
        progress.advance()
        join = seconds / _joining_s(sound, seconds, folder)
        progress.advance()
        starts: dict[Literal["serial", "ray"], float] = {}
        imports: list[float] = []
        for executor in EXECUTORS:
            try:
                whole_s, own_s = _starting_s(executor, model or _tiny_model(folder), moment, folder)
            except FarmError as error:
                if not imports:
                    raise
                progress.note(str(error))  # as where Ray cannot start: renders need not have it
                continue
            starts[executor] = own_s
            imports.append(whole_s - own_s)
            progress.advance()
    return MachineRate(
        kind=kind,
        cores=cpu_threads(),
        listen=listen,
        join=join,
        import_s=imports[0],
        start_s=starts,
        time=now(),
    )


def now() -> str:
    """The time of a measurement, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_sound(path: Path, seconds: float) -> None:
    """Two bursts of noise a second over a chord, in stereo, as a WAV file."""
    time_s = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(0).standard_normal(len(time_s))
    beats = noise * np.exp(-20 * (time_s % 0.5))
    chord = sum(np.sin(2 * np.pi * hertz * time_s) for hertz in (220.0, 277.2, 329.6))
    mono = 0.1 * beats + 0.1 * chord
    soundfile.write(path, np.column_stack([mono, mono * 0.8]), SAMPLE_RATE)


def _listening_s(moment: Path, sound: Path) -> float:
    """Seconds that a track takes, once the libraries are there."""
    spread = SerialExecutor("cpu").spread()
    _listen(moment, spread)
    started = time.perf_counter()
    _listen(sound, spread)
    return time.perf_counter() - started


def _listen(path: Path, spread: Spread) -> None:
    analyze_uri(AnalysisJob(str(path), str(FPS)), None, spread)


def _joining_s(sound: Path, seconds: int, folder: Path) -> float:
    """Seconds that segments and sound of a length take to become a checked video."""
    segment, encoded, video = (folder / name for name in ("segment.mp4", "s.m4a", "v.mp4"))
    encoder = EncoderSettings("libx264", 18, "ultrafast", ENCODER_THREADS, ffmpeg.version())
    num_frames = seconds * FPS
    width, height = SIZE
    grey = np.full((FPS, width * height * 3 // 2), 128, np.uint8)
    encode_segment(repeat(grey, seconds), segment, SIZE, Fraction(FPS), encoder)
    started = time.perf_counter()
    encode_audio(heard_blocks(sound, 0, seconds), encoded)
    stitch([(segment, num_frames)], encoded, video, Fraction(FPS))
    probe(video, decode=False)
    return time.perf_counter() - started


def _tiny_model(folder: Path) -> str:
    uri = folder / "model"
    if not uri.is_dir():
        uri.mkdir()
        keyframes = np.random.default_rng(0).standard_normal((4, 4), dtype=np.float32)
        write_model(uri, build(architecture_of("seed", SIZE, 4, (4,), (8, 4))), keyframes, {})
    return str(uri)


def _starting_s(executor: str, model: str, moment: Path, folder: Path) -> tuple[float, float]:
    """Seconds of a command that renders a moment, and those that its render calls its own.

    Raises:
        FarmError: with what it said.
    """
    output = folder / executor / "video.mp4"
    command = [sys.executable, "-m", "asha_ray", "render", str(moment)]
    command += ["--model", model, "--out", str(output), "--executor", executor, "--json"]
    command += ["--size", "x".join(map(str, SIZE))]
    # A cluster that is there already has other starts, and other people who wait for it.
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
                timeout=PATIENCE_S,
                check=True,
            )
        except subprocess.SubprocessError as error:
            said.seek(0)
            words = " ".join(said.read().decode(errors="replace").split())[-300:]
            raise FarmError(
                f"measuring how a render with --executor {executor} begins: {words or error}; "
                "render something to see more"
            ) from error
        whole_s = time.perf_counter() - started
    own_s = float(json.loads(done.stdout)["wall_s"])
    return whole_s, min(own_s, whole_s)
