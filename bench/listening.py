"""How fast, and in how much memory, sound is analysed, against a bare decode in the same run.

    python bench/listening.py [--minutes 1 10 60 180] [--stems none hpss spleeter] [--audio FILE]

Prints one line per separator and length: seconds of ffmpeg decoding the file to PCM and nothing
else, seconds of the analysis as `--executor serial` does it (decoding included), their ratio, the
ratio of their CPU seconds (on a machine that others use too, the steadier figure), real-time
factors, and the peak memory of the analysing process and its children together. Each runs in a
process of its own, and separates anew. Without a file, an mp3 of drums over chords is made
(192 kbit/s, 44.1 kHz, stereo); without a model of Spleeter's, one of random weights, which costs
the same.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import psutil

from asha_ray import ffmpeg

ROOT = Path(__file__).parent.parent


def main() -> None:
    options = _options()
    if options.analyze:
        _analyze(options.analyze, options.stems[0], options.model_dir)
        return
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {ffmpeg.version()}")
    print(
        "stems     minutes  decode s  analysis s  ratio  CPU ratio"
        "  decode xRT  analysis xRT  peak MB"
    )
    with tempfile.TemporaryDirectory(prefix="asha-bench-") as folder:
        model_dir = _model(Path(folder)) if "spleeter" in options.stems else None
        for stems, minutes in product(options.stems, options.minutes):
            path = _sound(Path(folder), minutes, options.audio)
            used = [_cpu_s()]
            decode_s = _decode(path)
            used.append(_cpu_s())
            analysis_s, peak_mb = _watch(path, stems, model_dir)
            decode_cpu_s, analysis_cpu_s = np.diff([*used, _cpu_s()])
            print(
                f"{stems:8}  {minutes:7g}  {decode_s:8.1f}  {analysis_s:10.1f}"
                f"  {analysis_s / decode_s:5.2f}"
                f"  {analysis_cpu_s / decode_cpu_s:9.2f}"
                f"  {minutes * 60 / decode_s:10.0f}  {minutes * 60 / analysis_s:12.0f}"
                f"  {peak_mb:7.0f}",
                flush=True,
            )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10, 60, 180])
    parser.add_argument("--audio", type=Path, help="a sound file at least as long")
    parser.add_argument("--stems", nargs="+", default=["none"])
    parser.add_argument("--model-dir", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--analyze", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _analyze(path: Path, stems: str, model_dir: Path | None) -> None:
    import asha_ray

    start = time.perf_counter()
    features = asha_ray.analyze(path, executor="serial", stems=stems, model_dir=model_dir)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "frames": features.num_frames}))


def _model(folder: Path) -> Path | None:
    from asha_ray.audio.stems.models import locate_model

    if locate_model("4stems"):
        return None
    sys.path.insert(0, str(ROOT))
    from tests.unit.audio.stems.bundles import random_model, write_bundle

    write_bundle(folder / "4stems", random_model("4stems"))
    return folder / "4stems"


def _sound(folder: Path, minutes: float, source: Path | None) -> Path:
    path = folder / "sound.mp3"
    start = ["-y", "-t", str(minutes * 60)]
    if source is not None:
        _run_ffmpeg([*start, "-i", f"file:{source}", "-c", "copy", str(path)])
        return path
    sys.path.insert(0, str(ROOT))
    from tests.mix import SAMPLE_RATE, mix

    pcm, _ = mix(minutes * 60, 100, 140)
    raw = ["-f", "f32le", "-ar", str(SAMPLE_RATE), "-ac", "1", "-i", "pipe:0"]
    with ffmpeg.Program([*raw, "-y", "-ac", "2", "-b:a", "192k", str(path)], stdin=True) as program:
        for block in pcm.blocks:
            program.stdin.write(block.tobytes())
        program.finish()
    return path


def _decode(path: Path) -> float:
    start = time.perf_counter()
    _run_ffmpeg(["-i", f"file:{path}", "-f", "s16le", "-y", os.devnull])
    return time.perf_counter() - start


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run_ffmpeg(arguments: list[str]) -> None:
    command = [ffmpeg.executable(), "-nostdin", "-v", "error", *arguments]
    subprocess.run(command, check=True)


def _watch(path: Path, stems: str, model_dir: Path | None) -> tuple[float, float]:
    """Seconds of the analysis itself, and the most memory its processes held at once, in MB."""
    command = [sys.executable, __file__, "--analyze", str(path), "--stems", stems]
    if model_dir is not None:
        command += ["--model-dir", str(model_dir)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    peak, family = 0, psutil.Process(process.pid)
    while process.poll() is None:
        peak = max(peak, _memory(family))
        time.sleep(0.05)
    output, _ = process.communicate()
    return float(json.loads(output)["seconds"]), peak / 1e6


def _memory(process: psutil.Process) -> int:
    try:
        family = [process, *process.children(recursive=True)]
        return sum(member.memory_info().rss for member in family)
    except psutil.Error:
        return 0


if __name__ == "__main__":
    main()
