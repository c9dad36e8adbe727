"""How near `asha-ray plan` comes to the time that a render then takes, measured in one run.

    python bench/plan.py [--model seed studio] [--seconds 20 60] [--executor serial ray]

Machines are shared, and their speed changes while one looks. So the rates are measured before and
after each render, which is made by the command line as a person would, and its forecast is the mean
of those by both; where these two differ much, the machine was not the same. Prints a line for each
render, and medians. All lies in a temporary folder; the user's own rates are not touched.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import mean, median

ROOT = Path(__file__).parent.parent
SIZE = "448x448"
STUDIO = ("studio", (192, 192), 64, (16, 32, 64, 96), (64, 32, 16))
SEED = ("seed", (448, 448), 200)
MODELS = {"seed": SEED, "studio": STUDIO}


def main() -> None:
    options = _options()
    print(f"{os.cpu_count()} cores; seconds of the whole command, at {SIZE} and 60 fps")
    print(
        "model   track  executor  round  load  forecast  by both      measured  forecast/measured"
    )
    ratios: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="asha-bench-") as name:
        folder = Path(name)
        # Before anything that looks for a user's files is imported.
        os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
        os.environ["PYTHONPATH"] = str(ROOT)
        tracks = {seconds: _track(folder, seconds) for seconds in options.seconds}
        cases = list(product(options.seconds, options.executor))
        for round_number, model in product(range(options.rounds), options.model):
            uri = _model(folder, model)
            _measure(uri, options.quick)
            for seconds, executor in cases:
                first = _forecast(tracks[seconds], uri, executor)
                measured, load = _render(tracks[seconds], uri, executor), os.getloadavg()[0]
                _measure(uri, options.quick)
                last = _forecast(tracks[seconds], uri, executor)
                ratio = mean([first, last]) / measured
                ratios.setdefault((model, executor), []).append(ratio)
                print(
                    f"{model:6}  {seconds:3} s  {executor:8}  {round_number:5}  {load:4.1f}"
                    f"  {mean([first, last]):8.1f}  {first:5.1f} {last:5.1f}  {measured:8.1f}"
                    f"  {ratio:17.2f}",
                    flush=True,
                )
    for (model, executor), values in ratios.items():
        print(f"{model:6}  {executor:8}  median {median(values):.2f} of {len(values)}")
    print(f"all  median {median(value for values in ratios.values() for value in values):.2f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seconds", type=int, nargs="+", default=[20, 60])
    parser.add_argument("--executor", nargs="+", default=["serial", "ray"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="measure rates in a minute")
    return parser.parse_args()


def _track(folder: Path, seconds: int) -> Path:
    sys.path.insert(0, str(ROOT))
    from tests.media import music, write_sound

    return write_sound(folder / f"{seconds}.wav", music(seconds, num_channels=2))


def _model(folder: Path, name: str) -> str:
    from asha_ray.farm.tools.bench_stages import sample_model
    from asha_ray.vae.architecture import architecture_of, build
    from asha_ray.vae.model_dir import write_model

    uri = folder / name
    if not uri.exists():
        uri.mkdir()
        files = sample_model(architecture_of(*MODELS[name]))
        vae = build(files.architecture)
        vae.load_state_dict(files.state)
        write_model(uri, vae, files.keyframes, {})
    return str(uri)


def _measure(model: str, quick: bool) -> None:
    _command("bench", "--model", model, "--size", SIZE, *["--quick"] * quick)


def _forecast(track: Path, model: str, executor: str) -> float:
    given = ["--model", model, "--size", SIZE, "--executor", executor, "--fresh"]
    return float(_command("plan", str(track), *given)["seconds"])


def _render(track: Path, model: str, executor: str) -> float:
    with tempfile.TemporaryDirectory(prefix="asha-bench-") as folder:
        given = ["--model", model, "--size", SIZE, "--executor", executor]
        started = time.perf_counter()
        _command("render", str(track), *given, "--out", f"{folder}/video.mp4")
        return time.perf_counter() - started


def _command(*arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "asha_ray", *arguments, "--json"],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
