"""What an archive must hold: idle decoders, three hours in constant memory, kills on the way.

python -m bench.archive idle            # a sleeping decoder in a GPU's place
python -m bench.archive long            # ten minutes, an hour and three hours of sound
python -m bench.archive kills           # 200 tracks, some broken; driver and node are killed
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
import torch

import asha_ray
from asha_ray.farm.rendering import task, worker
from asha_ray.storage.journal import read_events
from asha_ray.storage.ledger import Ledger
from asha_ray.values import FloatArray, Size
from asha_ray.video.probe import probe
from tests.cluster import cluster
from tests.media import music

RATE = 22050
SHOWS, SHOW_S, CHUNK_S, FPS = 12, 25.0, 5.0, 30
DECODE_S = 1.5
"""What the sleeping decoder takes for a chunk; a GPU and its encoder take two seconds and more."""


class Sleeper:
    """A generator whose pictures cost time and nothing else."""

    latent_dim = 4
    image_size: Size = (64, 64)

    def decode(self, latents: FloatArray) -> torch.Tensor:
        time.sleep(DECODE_S * len(latents) / (CHUNK_S * FPS))
        level = torch.from_numpy(np.tanh(latents[:, :1])).reshape(-1, 1, 1, 1) * 0.4 + 0.5
        return level.expand(-1, 3, 64, 64).contiguous()


def idle(folder: Path) -> None:
    """How long a decoder waits between shows."""
    for number in range(SHOWS):
        samples = music(SHOW_S, RATE) * 0.5
        samples += 0.1 * np.sin(2 * np.pi * (200 + 20 * number) * np.arange(len(samples)) / RATE)
        (folder / "shows").mkdir(exist_ok=True)
        soundfile.write(folder / "shows" / f"{number:02d}.wav", samples.astype(np.float32), RATE)
    model(folder / "model")
    spans: list[tuple[float, float]] = []
    render = worker.ChunkRenderer.render

    def timed(self: Any, *given: Any) -> Any:
        began = time.monotonic()
        try:
            return render(self, *given)
        finally:
            spans.append((began, time.monotonic()))

    worker.load_decoder = lambda *_: Sleeper()  # type: ignore[assignment,return-value]
    worker.ChunkRenderer.render = timed  # type: ignore[method-assign]
    task.decoders_for = lambda *_: 1  # a GPU is one
    result = asha_ray.archive(
        folder / "shows", model=folder / "model", out=folder / "videos", executor="serial",
        fps=FPS, chunk_seconds=CHUNK_S,
    )  # fmt: skip
    spans.sort()
    whole = spans[-1][1] - spans[0][0]
    busy = sum(stop - start for start, stop in spans)
    print(f"{result.done} shows, {len(spans)} chunks, load {os.getloadavg()[0]:.1f}")
    print(f"from the first chunk to the last {whole:.1f} s, busy {busy:.1f} s")
    print(f"idle {1 - busy / whole:.2%} (must be under 5 %)")


def model(folder: Path) -> None:
    """A small one whose pictures move."""
    from tests.integration.conftest import make_model

    make_model(folder)


def long(folder: Path) -> None:
    """Peak memory of one show by its length."""
    model(folder / "model")
    for minutes in (10, 60, 180):
        source = folder / f"{minutes}"
        source.mkdir()
        piece = music(60.0, RATE)
        with soundfile.SoundFile(source / "show.flac", "w", RATE, 1, subtype="PCM_16") as file:
            for minute in range(minutes):
                file.write(piece * (0.5 + 0.5 * np.sin(minute)) * 0.8)
        code = (
            "import sys, asha_ray; r = asha_ray.archive(sys.argv[1], model=sys.argv[2], "
            "out=sys.argv[3], executor='serial', fps=10, sound=sys.argv[4]); "
            "assert r.done == 1, r"
        )
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-c", code, source, folder / "model", folder / f"out{minutes}", "aac"]
        )
        peak = peak_bytes(process)
        video = next((folder / f"out{minutes}").glob("*.mp4"))
        report = probe(video)
        drift = float(abs(report.video_duration_s - (report.audio_duration_s or 0)))
        print(
            f"{minutes:4d} min: {time.monotonic() - began:6.0f} s, peak {peak / 1e6:5.0f} MB, "
            f"{report.frames} frames, sound and picture end {drift * 1000:.1f} ms apart, "
            f"problems: {report.problems() or 'none'}, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


def peak_bytes(process: subprocess.Popen[bytes]) -> int:
    """Memory of a process and all it starts, at its most; what they share counts once."""
    peak = 0
    tree = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        for member in (tree, *tree.children(recursive=True)):
            try:
                total += member.memory_full_info().pss  # a fork shows all of its parent's
            except psutil.Error:
                continue
        peak = max(peak, total)
        time.sleep(0.2)
    assert process.returncode == 0
    return peak


def kills(folder: Path, count: int = 200) -> None:
    """Many short tracks on three nodes; a node is killed, then the driver, then it goes on."""
    shows, broken = folder / "shows", 0
    for number in range(count):
        path = shows / f"series {number % 7}" / f"{number:03d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 20 == 7:
            path.write_text("no sound\n" * 50)
            broken += 1
            continue
        samples = music(1.5, RATE) * 0.6
        samples += 0.2 * np.sin(2 * np.pi * (150 + 3 * number) * np.arange(len(samples)) / RATE)
        soundfile.write(path, samples.astype(np.float32), RATE)
    model(folder / "model")
    out = folder / "videos"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [
        *(sys.executable, "-m", "asha_ray", "archive", shows, "--out", out),
        *("--model", folder / "model", "--fps", "10", "--chunk-seconds", "0.5", "--json"),
    ]
    seen: dict[str, int] = {}
    with cluster(environment, 3) as farm:
        own = {**environment, "RAY_ADDRESS": farm.address}

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command, env=own, stdout=subprocess.PIPE, start_new_session=True
            )

        def until(share: float, process: subprocess.Popen[bytes]) -> None:
            while videos(out) < share * (count - broken):
                assert process.poll() is None, "it has ended too early"
                time.sleep(0.2)

        began = time.monotonic()
        first = start()
        until(0.2, first)
        farm.kill(farm.nodes[0])
        print(f"a node is killed at {videos(out)} videos", flush=True)
        until(0.5, first)
        seen = made(out)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        print(f"the driver is killed at {len(seen)} videos", flush=True)
        result = json.loads(start().communicate()[0])
        took = time.monotonic() - began
        since = time.monotonic()
        again = start()
        second = json.loads(again.communicate()[0])
        nothing = time.monotonic() - since
    records = Ledger(str(out)).read_all()
    states = Counter(record.state for record in records.values())
    after = made(out)
    changed = [name for name, when in seen.items() if after[name] != when]
    rendered = Counter(
        event["chunk_id"]
        for run in Ledger(str(out)).runs()
        for event in read_events(Ledger(str(out)).run_folder(str(run["run"])))
        if event["event"] == "chunk-done"
    )
    print(f"{count} tracks, {broken} broken, {took:.0f} s in all, load {os.getloadavg()[0]:.1f}")
    print(f"ledger: {dict(states)}; videos: {videos(out)}; made again: {len(changed)}")
    print(f"parked with a reason: {all(r.reason for r in records.values() if r.state == 'parked')}")
    print(f"chunks heard done more than once: {sum(n > 1 for n in rendered.values())}")
    print(f"a run with nothing to do: {nothing:.1f} s, todo {second['todo']}")
    print(f"result: {result}")


def videos(out: Path) -> int:
    """Videos with their records."""
    return len(made(out))


def made(out: Path) -> dict[str, int]:
    """When each video got its name."""
    found = {}
    for path in out.rglob("*.mp4.json"):
        if path.relative_to(out).parts[0] not in (".asha", ".ledger"):
            found[str(path)] = path.stat().st_mtime_ns
    return found


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("idle", "long", "kills"))
    parser.add_argument("--count", type=int, default=200)
    given = parser.parse_args()
    what: dict[str, Callable[[Path], None]] = {
        "idle": idle, "long": long, "kills": lambda folder: kills(folder, given.count),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="asha-bench-") as name:
        what[given.what](Path(name))


if __name__ == "__main__":
    main()
