"""Spleeter's published models: where they are looked for, and how they get there."""

import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from asha_ray.audio.stems.kinds import KINDS, NUM_CONVOLUTIONS
from asha_ray.audio.stems.tf_checkpoint import Checkpoint
from asha_ray.errors import StemsError
from asha_ray.progress import NullProgress, Progress

RELEASE_URL = "https://github.com/deezer/spleeter/releases/download/v1.4.0"
"""What the spleeter package 2.4.2 itself downloads from, with a list of sha256 sums beside it."""
CHECKSUM_LIST = "checksum.json"
MODEL_FILES = ("checkpoint", "model.index", "model.data-00000-of-00001")
KERNEL = re.compile(r"conv2d(_\d+)?/kernel")
TIMEOUT_S = 30
MAX_CHECKSUM_BYTES = 1 << 20
MAX_ARCHIVE_BYTES = 1 << 30
MAX_UNPACKED_BYTES = 2 << 30
MAX_MEMBERS = 100
PIECE_BYTES = 1 << 20


def cache_root() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/asha-ray` or `~/.cache/asha-ray`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "asha-ray"


def locate_model(name: str, model_dir: Path | None = None) -> Path | None:
    """The folder that holds a model's three files, or None where there is none.

    Args:
        name: `2stems`, `4stems` or `5stems`.
        model_dir: the folder, or one that holds a folder of that name, and nowhere else is looked;
            None means the cache, then where Spleeter itself looks: `$MODEL_PATH` or
            `pretrained_models`.
    """
    for folder in _places(name, model_dir):
        if all((folder / file).is_file() for file in MODEL_FILES):
            return folder
    return None


def kind_of(folder: Path) -> str | None:
    """Which model a folder itself holds the files of, by the number of its networks; None if none.

    Raises:
        StemsError: if its index is damaged.
    """
    if not all((folder / file).is_file() for file in MODEL_FILES):
        return None
    kernels = [name for name in Checkpoint(folder).entries if KERNEL.fullmatch(name)]
    for name, kind in KINDS.items():
        if len(kernels) == NUM_CONVOLUTIONS * len(kind.stems):
            return name
    return None


def find_model(name: str, model_dir: Path | None = None) -> Path:
    """Like `locate_model`, but a model must be there.

    Raises:
        StemsError: if it is not, saying how to get it.
    """
    _check_name(name)
    folder = locate_model(name, model_dir)
    if folder is None:
        places = ", ".join(str(place) for place in _places(name, model_dir))
        raise StemsError(
            f"looking for the Spleeter model {name}: none of {places} holds "
            f"{', '.join(MODEL_FILES)}; {_remedy(name)}"
        )
    with remedied(name):
        _check_names_model(folder / "checkpoint")
    return folder


def fetch_model(
    name: str,
    cache: Path | None = None,
    *,
    url: str = RELEASE_URL,
    progress: Progress | None = None,
) -> Path:
    """Download a published model, check it against the publisher's own checksum, and unpack it.

    Nothing appears in its place unless all of it is right.

    Args:
        name: `2stems`, `4stems` or `5stems`.
        cache: the folder in which the model's own folder is made; None means the usual one.
        url: the folder of `<name>.tar.gz` and `checksum.json`.
        progress: told of the bytes that came.

    Returns:
        The folder with the model's three files.

    Raises:
        StemsError: if it cannot be had or is not what the publisher lists.
    """
    from asha_ray.audio.stems.unet import load_mask_model

    _check_name(name)
    cache = cache or cache_root() / "spleeter"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as scratch:
            archive = Path(scratch) / "archive"
            expected = _published_checksum(name, url)
            actual = _download(f"{url}/{name}.tar.gz", archive, progress or NullProgress())
            if actual != expected:
                raise StemsError(
                    f"its sha256 is {actual}, the publisher's list says {expected}: "
                    "it was damaged or changed on its way"
                )
            unpacked = Path(scratch) / name
            _unpack(archive, unpacked)
            _check_names_model(unpacked / "checkpoint")
            load_mask_model(Checkpoint(unpacked), name)
            _put_in_place(unpacked, cache / name, Path(scratch) / "old")
    except (OSError, ValueError, EOFError, StemsError, tarfile.TarError, zlib.error) as error:
        raise StemsError(
            f"fetching the Spleeter model {name} from {url}: {error}; try again, or "
            f"{_by_hand(name, cache / name)}"
        ) from error
    return cache / name


@contextmanager
def remedied(name: str) -> Iterator[None]:
    """Errors about a model's files, with how to get good ones."""
    try:
        yield
    except StemsError as error:
        raise StemsError(f"{error}; {_remedy(name)}") from error


def _check_name(name: str) -> None:
    if name not in KINDS:
        raise StemsError(
            f"looking for the Spleeter model {name!r}: there is none; choose from {list(KINDS)}"
        )


def _places(name: str, model_dir: Path | None) -> list[Path]:
    if model_dir is not None:
        return [model_dir, model_dir / name]
    theirs = Path(os.environ.get("MODEL_PATH") or "pretrained_models")
    return [cache_root() / "spleeter" / name, theirs / name]


def _remedy(name: str) -> str:
    place = cache_root() / "spleeter" / name
    return f"fetch it with `asha-ray stems --fetch {name}`, or {_by_hand(name, place)}"


def _by_hand(name: str, folder: Path) -> str:
    return (
        f"unpack {RELEASE_URL}/{name}.tar.gz into {folder} yourself, or into any folder that you "
        "name with --model-dir"
    )


def _check_names_model(path: Path) -> None:
    with path.open("rb") as file:
        text = file.read(1 << 16)
    if not re.match(rb'\s*model_checkpoint_path:\s*"(?:[^"\n]*/)?model"', text):
        raise StemsError(f'reading {path}: it does not name the checkpoint "model"')


def _open(url: str) -> IO[bytes]:
    request = urllib.request.Request(url, headers={"User-Agent": "asha-ray"})  # noqa: S310
    try:
        response: IO[bytes] = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        raise StemsError(f"{url} answers {error}") from error
    return response


def _published_checksum(name: str, url: str) -> str:
    with _open(f"{url}/{CHECKSUM_LIST}") as response:
        listed = json.loads(response.read(MAX_CHECKSUM_BYTES))
    checksum = listed.get(name) if isinstance(listed, dict) else None
    if not isinstance(checksum, str):
        raise StemsError(f"{CHECKSUM_LIST} there does not list it")
    return checksum.lower()


def _download(url: str, target: Path, progress: Progress) -> str:
    """Write what is at a URL to a file; its sha256."""
    digest, num_bytes = hashlib.sha256(), 0
    with _open(url) as response, target.open("wb") as file:
        length = getattr(response, "headers", {}).get("Content-Length", "")
        expected = int(length) if length.isdecimal() else None
        progress.stage(f"fetching {url.rpartition('/')[2]}", expected, "bytes")
        while piece := response.read(PIECE_BYTES):
            num_bytes += len(piece)
            if num_bytes > MAX_ARCHIVE_BYTES:
                raise StemsError(f"it is larger than {MAX_ARCHIVE_BYTES >> 20} MiB")
            digest.update(piece)
            file.write(piece)
            progress.advance(len(piece))
    if expected is not None and num_bytes != expected:
        raise StemsError(f"the download broke off after {num_bytes} of {expected} bytes")
    return digest.hexdigest()


def _unpack(archive: Path, folder: Path) -> None:
    """Take a model's three files, and nothing else, out of an archive."""
    folder.mkdir()
    num_bytes = 0
    with tarfile.open(archive, "r:gz") as tar:
        for number, member in enumerate(tar):
            # Sizes are looked at before the bytes that they speak of are unpacked.
            num_bytes += member.size
            if num_bytes > MAX_UNPACKED_BYTES or number >= MAX_MEMBERS:
                raise StemsError("the archive unpacks to more than a model")
            path = PurePosixPath(member.name)
            if member.isfile() and path.name in MODEL_FILES and len(path.parts) <= 2:
                tar.extract(member.replace(name=path.name), folder, filter="data")
    missing = [file for file in MODEL_FILES if not (folder / file).is_file()]
    if missing:
        raise StemsError(f"the archive lacks {', '.join(missing)}")


def _put_in_place(source: Path, target: Path, aside: Path) -> None:
    if target.exists():
        target.replace(aside)
    source.replace(target)
    shutil.rmtree(aside, ignore_errors=True)
