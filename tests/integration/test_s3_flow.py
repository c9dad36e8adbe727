"""The whole flow with every path in a bucket."""

import io
from collections.abc import Callable
from pathlib import Path

import boto3
import numpy as np
import pytest
from PIL import Image

import asha_ray
from asha_ray.errors import AudioError, ImageError, ModelError, NotFoundError, StorageError


def put(uri: str, content: bytes) -> None:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=content)


def keys(uri: str) -> set[str]:
    """Names of all objects below a prefix."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    pages = (
        boto3.client("s3")
        .get_paginator("list_objects_v2")
        .paginate(Bucket=bucket, Prefix=f"{prefix}/")
    )
    return {item["Key"][len(prefix) + 1 :] for page in pages for item in page.get("Contents", [])}


def put_folder(folder: Path, uri: str) -> str:
    for path in folder.iterdir():
        if path.is_file():
            put(f"{uri}/{path.name}", path.read_bytes())
    return uri


@pytest.fixture
def remote_track(bucket: str, track: Path) -> str:
    put(f"{bucket}/track nö 1.wav", track.read_bytes())
    return f"{bucket}/track nö 1.wav"


def test_from_a_model_and_a_track_to_an_inspected_video(
    bucket: str, remote_track: str, model: Path, tmp_path: Path
) -> None:
    remote_model = put_folder(model, f"{bucket}/models/m")
    out = f"{bucket}/videos/v.mp4"

    features = asha_ray.analyze(
        remote_track, out=f"{bucket}/f.npz", plot=f"{bucket}/p.png", executor="serial"
    )
    latents = asha_ray.path(f"{bucket}/f.npz", model=remote_model, out=f"{bucket}/z.npy")
    options = {"model": remote_model, "executor": "serial", "chunk_seconds": 1}
    first = asha_ray.render(remote_track, out=out, **options)
    again = asha_ray.render(remote_track, out=out, **options)
    found = asha_ray.inspect(out)
    drawn = asha_ray.sample(model=remote_model, out=f"{bucket}/drawn", count=3)

    assert len(latents) == features.num_frames == first.frames == found.report.frames
    assert (first.reused_chunks, again.reused_chunks) == (0, first.chunks)
    assert found.problems == ()
    assert found.motion_correlation > 0.6
    assert {"v.mp4", "v.mp4.json"} <= keys(f"{bucket}/videos")
    assert {"f.npz", "p.png", "z.npy"} <= keys(bucket)
    assert keys(f"{bucket}/drawn") == {"00000.png", "00001.png", "00002.png", "sheet.png"}
    assert drawn.sheet == f"{bucket}/drawn/sheet.png"
    work = keys(f"{bucket}/videos/.asha")
    assert sum(name.startswith("segments/") for name in work) == 2 * first.chunks
    local = asha_ray.render(
        remote_track, model=model, out=tmp_path / "v.mp4", executor="serial", chunk_seconds=1
    )
    assert local.render_id == first.render_id


@pytest.mark.usefixtures("local_ray")
@pytest.mark.timeout(180)
def test_workers_of_ray_reach_the_bucket(bucket: str, remote_track: str, model: Path) -> None:
    remote_model = put_folder(model, f"{bucket}/m")

    features = asha_ray.analyze(remote_track, out=f"{bucket}/f.npz")
    result = asha_ray.render(
        remote_track, model=remote_model, out=f"{bucket}/v.mp4", work=f"{bucket}/work"
    )

    assert result.frames == features.num_frames
    assert asha_ray.inspect(f"{bucket}/v.mp4").problems == ()
    assert {name.split("/")[0] for name in keys(f"{bucket}/work")} == {
        "features", "renders", "segments"
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.timeout(300)
def test_training_from_a_bucket_to_a_bucket(bucket: str, pictures: Path, recorder: object) -> None:
    images = put_folder(pictures, f"{bucket}/images")
    put(f"{images}/zz broken.png", b"no picture")
    out = f"{bucket}/models/neon"
    options = {"size": 24, "latent": 4, "batch_size": 8}
    filters = {"encoder_filters": (4, 8), "decoder_filters": (8, 4)}

    result = asha_ray.train(images, out=out, epochs=1, progress=recorder, **options, **filters)
    resumed = asha_ray.train(images, out=out, epochs=2, resume=True, **options, **filters)

    assert (result.images, result.skipped) == (19, 1)
    assert "zz broken.png" in recorder.notes[0]
    assert resumed.epochs == 2
    assert keys(out) == {
        "config.json", "model.safetensors", "keyframes.npy", "metrics.jsonl",
        "samples/epoch-0001.png", "samples/epoch-0002.png", "samples/progress.png",
    }  # fmt: skip
    assert asha_ray.load_model(out).keyframes.shape == (19, 4)


def test_an_initialised_model_in_a_bucket(bucket: str, pictures: Path) -> None:
    images = put_folder(pictures, f"{bucket}/images")

    asha_ray.train(images, out=f"{bucket}/m/", epochs=0, size=16, latent=2)

    assert asha_ray.load_model(f"{bucket}/m").latent_dim == 2


def test_pictures_come_in_the_same_order_as_from_a_disk(bucket: str, tmp_path: Path) -> None:
    """File order names the keyframes, so a tour must not depend on where the files lie."""
    from asha_ray.farm.training.dataset import list_images

    buffer = io.BytesIO()
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(buffer, "PNG")
    names = ["a/1.png", "a-b.png", "a.png", "B.png", "é.png", "z/a/0.png", "z.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(buffer.getvalue())
        put(f"{bucket}/images/{name}", buffer.getvalue())

    remote = [uri.removeprefix(f"{bucket}/images/") for uri in list_images(f"{bucket}/images")]
    local = [str(Path(uri).relative_to(tmp_path)) for uri in list_images(str(tmp_path))]

    assert remote == local


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda b: asha_ray.load_model(f"{b}/none"), ModelError, "config.json is missing"),
        (
            lambda b: asha_ray.analyze(f"{b}/none.wav", executor="serial"),
            NotFoundError,
            "no such object",
        ),
        (lambda b: asha_ray.train(f"{b}/none", out=f"{b}/m"), ImageError, "no images in it"),
        (lambda b: asha_ray.inspect(f"{b}/none.mp4"), NotFoundError, "no such object"),
        (
            lambda _: asha_ray.inspect("s3://asha-no-such-bucket/v.mp4"),
            NotFoundError,
            "no such",
        ),
    ],
    ids=["model", "audio", "images", "video", "bucket"],
)
def test_what_is_not_there_is_said(
    bucket: str, call: Callable[[str], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        call(bucket)

    assert caught.value.exit_code == 2


def test_a_bucket_that_does_not_exist_is_noticed_before_the_work(track: Path, model: Path) -> None:
    with pytest.raises(StorageError, match="there is no such bucket") as caught:
        asha_ray.render(track, model=model, out="s3://asha-no-such-bucket/v.mp4")

    assert caught.value.exit_code == 2


def test_a_failed_render_leaves_no_object(bucket: str, model: Path) -> None:
    put(f"{bucket}/text.wav", b"this is no sound")

    with pytest.raises(AudioError):
        asha_ray.render(
            f"{bucket}/text.wav", model=model, out=f"{bucket}/out/v.mp4", executor="serial"
        )

    assert keys(f"{bucket}/out") == set()


class TestModelCache:
    """A model in a bucket comes to each node once, and never stale."""

    @pytest.fixture(autouse=True)
    def own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return tmp_path / "cache" / "asha-ray" / "models"

    def test_it_is_fetched_once(
        self, bucket: str, model: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from asha_ray.storage.s3 import S3Storage

        uri = put_folder(model, f"{bucket}/m")
        first = asha_ray.load_model(uri)
        monkeypatch.setattr(S3Storage, "download", None)
        again = asha_ray.load_model(uri)

        np.testing.assert_array_equal(first.keyframes, again.keyframes)
        [entry] = own_cache.iterdir()
        assert own_cache.stat().st_mode & 0o777 == 0o700
        assert {path.name for path in entry.iterdir()} >= {"config.json", "model.safetensors"}

    def test_a_model_that_is_trained_anew_is_another(
        self, bucket: str, model: Path, own_cache: Path
    ) -> None:
        uri = put_folder(model, f"{bucket}/m")
        asha_ray.load_model(uri)
        keyframes = io.BytesIO()
        np.save(keyframes, np.full((2, 4), 7, np.float32))
        put(f"{uri}/keyframes.npy", keyframes.getvalue())

        assert (asha_ray.load_model(uri).keyframes == 7).all()
        assert len(list(own_cache.iterdir())) == 2

    def test_many_may_come_at_once(self, bucket: str, model: Path, own_cache: Path) -> None:
        from concurrent.futures import ThreadPoolExecutor

        from asha_ray.farm.models import load_files

        uri = put_folder(model, f"{bucket}/m")
        with ThreadPoolExecutor(8) as pool:
            digests = {files.digest for files in pool.map(load_files, [uri] * 8)}

        assert len(digests) == 1
        assert len(list(own_cache.iterdir())) == 1

    def test_a_cache_that_cannot_be_written_is_done_without(
        self, bucket: str, model: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "cache").write_text("a file where a folder should be")

        assert asha_ray.load_model(put_folder(model, f"{bucket}/m")).latent_dim == 4

    def test_an_incomplete_model_is_not_kept(
        self, bucket: str, model: Path, own_cache: Path
    ) -> None:
        put(f"{bucket}/m/config.json", (model / "config.json").read_bytes())

        with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
            asha_ray.load_model(f"{bucket}/m")

        assert list(own_cache.iterdir()) == []
