"""The other end of `spleeter_tf.py`: runs in the spleeter package's own environment, as a script.

What comes in on stdin, again and again: blocks of a track, each a count of samples (uint32, little
endian) and that many pairs of float32; a count of 0 ends the track. What goes out on stdout: a
count of bytes (uint32) and so much JSON, `{"num_samples": n}`; then blocks of
at most `BLOCK` samples, one stem after the other, pairs of float32, `n` of each stem in all.

Arguments: the model (`4stems`), its folder, the stems in the order in which they go out.
"""

import json
import os
import struct
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

BLOCK = 1 << 18
FILES = ("checkpoint", "model.index", "model.data-00000-of-00001")


def main() -> None:
    """Answer until stdin ends."""
    # TensorFlow talks on stdout, so what was stdout is kept for the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    name, folder, *stems = sys.argv[1:]
    require_model(folder)
    separator = load(name, folder)
    while True:
        sound = read_track(sys.stdin.buffer)
        if sound is None:
            return
        require_model(folder)
        try:
            answer(answers, stems, separator.separate(sound) if len(sound) else None)
        except BrokenPipeError:
            return


def load(name: str, folder: str) -> Any:
    """The package's own separator, with a model of ours."""
    from spleeter.separator import Separator
    from spleeter.utils.configuration import load_configuration

    settings = load_configuration(f"spleeter:{name}")
    settings["model_dir"] = folder
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "settings.json"
        path.write_text(json.dumps(settings))
        return Separator(str(path), multiprocess=False)


def require_model(folder: str) -> None:
    """End rather than go on: the package takes random weights where it finds none."""
    for name in FILES:
        if not (Path(folder) / name).is_file():
            sys.exit(f"the model's {name} is no longer in {folder}")


def read_track(stream: IO[bytes]) -> Any:
    """A track `[m, 2]`, or None where there are no more."""
    parts = [np.zeros((0, 2), np.float32)]
    while True:
        header = stream.read(4)
        if len(header) < 4:
            return None
        (count,) = struct.unpack("<I", header)
        if not count:
            return np.concatenate(parts)
        data = stream.read(8 * count)
        if len(data) < 8 * count:
            return None
        parts.append(np.frombuffer(data, "<f4").reshape(-1, 2))


def answer(stream: IO[bytes], stems: list[str], separated: Any) -> None:
    """Write the stems; none are those of a track without samples."""
    num_samples = len(separated[stems[0]]) if separated else 0
    header = json.dumps({"num_samples": num_samples}).encode()
    stream.write(struct.pack("<I", len(header)) + header)
    for first in range(0, num_samples, BLOCK):
        for stem in stems:
            block = separated[stem][first : first + BLOCK]
            stream.write(np.ascontiguousarray(block, "<f4").tobytes())
    stream.flush()


if __name__ == "__main__":
    main()
