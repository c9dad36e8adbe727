"""The article's own pipeline as a baseline: Keras decoder, all frames in memory, MoviePy.

It builds the same decoder in Keras/TensorFlow, in an environment of its own, decodes with batch 1
as the article does, and with batch 16, keeps every frame, and lets MoviePy write the video; then
`asha-ray`'s serial render of as many frames of the same size. All are timed in turns, in one run,
since machines are shared: only the ratio counts.

    python bench/article_pipeline.py --seconds 5 --rounds 3 --env /tmp/article-env --json out.json
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

PACKAGES = ("tensorflow-cpu", "moviepy", "numpy")
FPS = 60

BASELINE = """
import os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import keras
from keras import layers
from moviepy import ImageSequenceClip

def decoder():
    inputs = keras.Input((200,))
    x = layers.Dense(7 * 7 * 128, activation="tanh")(inputs)
    x = layers.Reshape((7, 7, 128))(x)
    for count, number in ((256, 4), (128, 4), (64, 3), (32, 3), (16, 3)):
        for index in range(number):
            x = layers.Conv2DTranspose(
                count, 3, strides=2 if index == 0 else 1, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(3, 3, strides=2, padding="same", activation="sigmoid")(x)
    return keras.Model(inputs, x)

model = decoder()
for layer in model.layers:
    if "transpose" in layer.name:
        layer.set_weights([part * (1.9 if part.ndim == 4 else 1) for part in layer.get_weights()])
model.predict(np.zeros((16, 200), np.float32), verbose=0)
model.predict(np.zeros((1, 200), np.float32), batch_size=1, verbose=0)
print("ready", flush=True)
for line in sys.stdin:
    batch, latents_path, out = line.rstrip("\\n").split("\\t")
    latents = np.load(latents_path)
    started = time.perf_counter(), time.process_time()
    if int(batch) == 1:  # the article's loop
        frames = [model.predict(z[None], verbose=0)[0] for z in latents]
    else:
        frames = list(model.predict(latents, batch_size=int(batch), verbose=0))
    frames = [(frame * 255).astype(np.uint8) for frame in frames]
    clip = ImageSequenceClip(frames, fps=60)
    clip.write_videofile(out, codec="libx264", audio=False, logger=None)
    print(time.perf_counter() - started[0], time.process_time() - started[1], flush=True)
"""

OURS = """
import sys, time
import numpy as np
from asha_ray.farm.tools.bench import _default
from asha_ray.farm.tools.bench_stages import Stages, sample_model
from asha_ray.vae.numerics import device_kind
from asha_ray.values import Chunk
files = sample_model()
stages = Stages(files, _default(device_kind("cpu"), files, (448, 448)))
print("ready", flush=True)
for line in sys.stdin:
    num_frames = int(line)
    started = time.perf_counter(), time.process_time()
    stages._to_segment(stages._render(num_frames))
    print(time.perf_counter() - started[0], time.process_time() - started[1], flush=True)
"""


class Worker:
    """A program that measures one pipeline whenever a line is written to it."""

    def __init__(self, python: Path, code: str) -> None:
        self._process = subprocess.Popen(
            [str(python), "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer("ready")

    def measure(self, *line: object) -> float:
        """Seconds of wall time."""
        self._process.stdin.write("\t".join(map(str, line)) + "\n")
        self._process.stdin.flush()
        return float(self._answer().split()[0])

    def close(self) -> None:
        self._process.communicate()

    def _answer(self, wanted: str | None = None) -> str:
        for line in self._process.stdout:
            if wanted is None or line.strip() == wanted:
                return line
        raise SystemExit(f"a worker ended with code {self._process.wait()}")


def environment(folder: Path) -> Path:
    """Its own Python with what the article uses, made once."""
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (folder / "ready").touch()
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of video, each time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--env", type=Path, default=Path(tempfile.gettempdir()) / "article-env")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    import numpy as np

    num_frames = round(arguments.seconds * FPS)
    with tempfile.TemporaryDirectory(prefix="article-") as name:
        folder = Path(name)
        random = np.random.default_rng(0)
        steps = random.standard_normal((num_frames, 200), dtype=np.float32) * 0.15
        np.save(folder / "z.npy", steps.cumsum(axis=0))
        theirs = Worker(environment(arguments.env), BASELINE)
        ours = Worker(Path(sys.executable), OURS)
        rates: dict[str, list[float]] = {"batch 1": [], "batch 16": [], "asha-ray": []}
        for _ in range(arguments.rounds):
            for batch in (1, 16):
                seconds = theirs.measure(batch, folder / "z.npy", folder / "article.mp4")
                rates[f"batch {batch}"].append(num_frames / seconds)
            rates["asha-ray"].append(num_frames / ours.measure(num_frames))
        theirs.close()
        ours.close()
    report = {
        "cores": len(os.sched_getaffinity(0)),
        "frames": num_frames,
        "rounds": rates,
        "frames_per_second": {name: median(found) for name, found in rates.items()},
        "ratio_to_batch_1": median(
            a / b for a, b in zip(rates["asha-ray"], rates["batch 1"], strict=True)
        ),
        "ratio_to_batch_16": median(
            a / b for a, b in zip(rates["asha-ray"], rates["batch 16"], strict=True)
        ),
        "children_peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        "measured": time.strftime("%Y-%m-%d"),
    }
    print(json.dumps(report, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
