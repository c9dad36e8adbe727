"""Models: found where they are said to be, fetched whole and checked, or not at all."""

import hashlib
import io
import json
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from asha_ray.audio.stems import models
from asha_ray.audio.stems.models import MODEL_FILES, fetch_model, find_model, locate_model
from asha_ray.errors import StemsError
from asha_ray.progress import NullProgress


def place(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for file in MODEL_FILES:
        (folder / file).write_text('model_checkpoint_path: "model"\n')
    return folder


def test_places_are_tried_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODEL_PATH")
    assert locate_model("4stems") is None
    theirs = place(tmp_path / "pretrained_models" / "4stems")
    assert locate_model("4stems").resolve() == theirs
    monkeypatch.setenv("MODEL_PATH", str(tmp_path / "shared"))
    assert locate_model("4stems") is None
    shared = place(tmp_path / "shared" / "4stems")
    assert locate_model("4stems") == shared
    cached = place(tmp_path / "cache" / "asha-ray" / "spleeter" / "4stems")
    assert find_model("4stems") == cached
    assert locate_model("2stems") is None


def test_a_folder_that_is_named_is_the_only_one(tmp_path):
    """Another model in the cache must not stand in for one that was asked for and is not there."""
    place(tmp_path / "cache" / "asha-ray" / "spleeter" / "4stems")
    assert locate_model("4stems", tmp_path / "mine") is None
    inner = place(tmp_path / "mine" / "4stems")
    assert locate_model("4stems", tmp_path / "mine") == inner
    assert locate_model("4stems", inner) == inner


def test_a_missing_model_names_both_remedies(tmp_path):
    folder = place(tmp_path / "mine")
    (folder / "model.index").unlink()
    with pytest.raises(StemsError) as caught:
        find_model("4stems", folder)
    message = str(caught.value)
    assert "asha-ray stems --fetch 4stems" in message
    assert "releases/download/v1.4.0/4stems.tar.gz" in message
    assert all(file in message for file in MODEL_FILES)


def test_only_spleeters_models_have_names():
    with pytest.raises(StemsError, match=r"'\.\./4stems'.*2stems"):
        find_model("../4stems")
    with pytest.raises(StemsError, match="'6stems'"):
        fetch_model("6stems")


def test_a_checkpoint_of_another_name_is_refused(tmp_path):
    folder = place(tmp_path / "m")
    (folder / "checkpoint").write_text('model_checkpoint_path: "model-99"\n')
    with pytest.raises(StemsError, match=r'does not name the checkpoint "model".*--fetch'):
        find_model("4stems", folder)
    (folder / "checkpoint").write_text('model_checkpoint_path: "/far/away/model"\n')
    assert find_model("4stems", folder) == folder


# ---- fetching ----


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class CutShort(Quiet):
    """Promises more than it sends."""

    def do_GET(self):
        data = (Path(self.directory) / self.path.lstrip("/")).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        keep = len(data) if self.path.endswith("json") else len(data) // 2
        self.wfile.write(data[:keep])


@pytest.fixture
def publisher(tmp_path):
    """A folder that is served on loopback; `publisher.url` is its address."""

    class Publisher:
        folder = tmp_path / "published"
        handler = Quiet

        def __enter__(self):
            self.folder.mkdir()
            self.server = ThreadingHTTPServer(
                ("127.0.0.1", 0),
                lambda *args: self.handler(*args, directory=str(self.folder)),
            )
            self.url = f"http://127.0.0.1:{self.server.server_port}"
            threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
            return self

        def __exit__(self, *_):
            self.server.shutdown()
            self.server.server_close()

        def publish(self, archive: bytes, checksum: str | None = None) -> None:
            (self.folder / "2stems.tar.gz").write_bytes(archive)
            checksum = checksum or hashlib.sha256(archive).hexdigest()
            (self.folder / "checksum.json").write_text(json.dumps({"2stems": checksum}))

    with Publisher() as running:
        yield running


def archive(*members: tuple[tarfile.TarInfo, bytes | Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=0) as tar:
        for info, content in members:
            data = content.read_bytes() if isinstance(content, Path) else content
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def model_members(folder: Path, prefix: str = "./") -> list[tuple[tarfile.TarInfo, Path]]:
    return [(tarfile.TarInfo(prefix + file), folder / file) for file in MODEL_FILES]


class Bytes(NullProgress):
    def __init__(self):
        self.total, self.done = None, 0

    def stage(self, name, total=None, unit=""):
        self.total = total

    def advance(self, count=1, detail=""):
        self.done += count


@pytest.mark.parametrize("prefix", ["", "./", "2stems/"])
def test_a_published_model_is_fetched(publisher, two_stems, tmp_path, prefix):
    extras = [(tarfile.TarInfo("._checkpoint"), b"x"), (tarfile.TarInfo("model.meta"), b"y")]
    packed = archive(*extras, *model_members(two_stems / "2stems", prefix))
    publisher.publish(packed)
    progress = Bytes()
    cache = tmp_path / "models"
    folder = fetch_model("2stems", cache, url=publisher.url, progress=progress)
    assert folder == cache / "2stems"
    assert sorted(path.name for path in folder.iterdir()) == sorted(MODEL_FILES)
    assert list(cache.iterdir()) == [folder]
    assert progress.total == progress.done == len(packed)
    for file in MODEL_FILES:
        assert (folder / file).read_bytes() == (two_stems / "2stems" / file).read_bytes()


def test_the_cache_is_where_it_goes_and_is_found(publisher, two_stems):
    publisher.publish(archive(*model_members(two_stems / "2stems")))
    assert fetch_model("2stems", url=publisher.url) == find_model("2stems")


def test_a_bad_model_in_the_cache_is_replaced(publisher, two_stems, tmp_path):
    publisher.publish(archive(*model_members(two_stems / "2stems")))
    place(tmp_path / "2stems")
    folder = fetch_model("2stems", tmp_path, url=publisher.url)
    assert (folder / "model.index").stat().st_size > 1000


def check_fails(publisher, cache: Path, message: str) -> None:
    with pytest.raises(StemsError, match=message) as caught:
        fetch_model("2stems", cache, url=publisher.url)
    assert "unpack https://github.com/deezer/spleeter/releases" in str(caught.value)
    assert str(cache / "2stems") in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_changed_archive_is_not_unpacked(publisher, tmp_path):
    publisher.publish(archive((tarfile.TarInfo("checkpoint"), b"x")), checksum="0" * 64)
    check_fails(publisher, tmp_path / "models", "sha256.*damaged or changed")


def test_a_download_that_breaks_off(publisher, tmp_path):
    publisher.handler = CutShort
    publisher.publish(archive((tarfile.TarInfo("checkpoint"), b"x" * 100_000)))
    check_fails(publisher, tmp_path / "models", "broke off|IncompleteRead|incomplete")


def test_what_is_not_published(publisher, tmp_path):
    check_fails(publisher, tmp_path / "models", "404")
    (publisher.folder / "checksum.json").write_text('{"4stems": "0"}')
    check_fails(publisher, tmp_path / "models", "does not list it")
    (publisher.folder / "checksum.json").write_text("<html>")
    check_fails(publisher, tmp_path / "models", "Expecting value")


def test_no_network(publisher, tmp_path):
    publisher.server.shutdown()
    publisher.server.server_close()
    check_fails(publisher, tmp_path / "models", "refused")


def link(name: str, kind: bytes, target: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


HOSTILE = {
    "outside": [(tarfile.TarInfo("../../checkpoint"), b"x")],
    "absolute": [(tarfile.TarInfo("/tmp/a/checkpoint"), b"x")],
    "a link": [link("model.index", tarfile.SYMTYPE, "/etc/passwd")],
    "a hard link": [link("model.index", tarfile.LNKTYPE, "/etc/passwd")],
    "nothing": [],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_names_and_links_in_an_archive_lead_nowhere(publisher, tmp_path, members):
    """Its checksum is right here: the publisher itself was taken over."""
    publisher.publish(archive(*members))
    check_fails(publisher, tmp_path / "models", "the archive lacks")
    assert not (tmp_path / "checkpoint").exists()


def test_an_archive_that_swells_is_stopped(publisher, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "MAX_UNPACKED_BYTES", 1 << 16)
    publisher.publish(archive((tarfile.TarInfo("model.meta"), bytes(1 << 17))))
    check_fails(publisher, tmp_path / "models", "more than a model")
    monkeypatch.setattr(models, "MAX_ARCHIVE_BYTES", 1 << 10)
    check_fails(publisher, tmp_path / "models", "larger than")


def test_a_truncated_or_foreign_archive(publisher, two_stems, tmp_path):
    publisher.publish(b"not an archive")
    check_fails(publisher, tmp_path / "models", "gzip")
    publisher.publish(archive(*model_members(two_stems / "2stems"))[:1_000_000])
    check_fails(publisher, tmp_path / "models", "end|data")


def test_an_archive_of_another_model_is_refused(publisher, tmp_path):
    publisher.publish(archive(*model_members(place(tmp_path / "other"))))
    check_fails(publisher, tmp_path / "models", "damaged")
