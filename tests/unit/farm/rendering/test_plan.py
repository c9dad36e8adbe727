"""A render's plan: every frame in exactly one chunk, and identities that mean something."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asha_ray.errors import ModelError, ResourceError, SpecError
from asha_ray.farm.listening.analysis import Analysis, analysis_job
from asha_ray.farm.places import absolute
from asha_ray.farm.rendering import plan as plan_module
from asha_ray.farm.rendering.plan import (
    Plan,
    check_memory,
    encoder_settings,
    make_plan,
    video_size,
    work_uri,
    worker_bytes,
)
from asha_ray.farm.rendering.task import WorkerJob
from asha_ray.spec import RENDER_OPTIONS, RenderSpec, build, with_options
from asha_ray.storage.keys import array_digest
from asha_ray.vae import architecture as architectures
from asha_ray.vae.generator import numerics_for
from asha_ray.vae.model_dir import ModelFiles
from asha_ray.values import EncoderSettings, Features, num_frames_of
from asha_ray.video.batches import chunk_latents

LATENT = 4
TRACK_S = Fraction(7 * 44100 + 321, 44100)
ENCODER = EncoderSettings("libx264", 18, "veryfast", 2, "7.0.2")
RATES = ["24", "25", "30", "30000/1001", "60"]


def make_spec(**options: Any) -> RenderSpec:
    given = {"audio": "/a.wav", "model": "/m", "out": "/v.mp4", **options}
    return build(RenderSpec, with_options({}, given, RENDER_OPTIONS))


def analysis_at(fps: Fraction, duration_s: Fraction = TRACK_S) -> Analysis:
    num_frames = num_frames_of(duration_s, fps)
    envelope = np.abs(np.sin(np.arange(num_frames) / 7)).astype(np.float32)
    features = Features(
        fps=fps,
        duration_s=float(duration_s),
        onset_strength=envelope,
        beat_frames=np.arange(0, num_frames, 30),
        beat_times=np.arange(0, num_frames, 30) / 60,
        tempo=120.0,
        decay_linear=envelope,
        decay_exponential=envelope**2,
        rms=envelope,
        bands=np.stack([envelope] * 3, axis=1),
    )
    return Analysis(features, "audio-digest", "features-digest", 0)


def model_files(num_keyframes: int = 9, size: tuple[int, int] = (32, 24)) -> ModelFiles:
    keyframes = np.random.default_rng(0).standard_normal((num_keyframes, LATENT))
    return ModelFiles(
        architecture=architectures.architecture_of("seed", size, LATENT, (4,), (4,)),
        state={},
        keyframes=keyframes.astype(np.float32),
        training={},
        digest="model-digest",
    )


def plan_of(spec: RenderSpec, **changes: Any) -> Plan:
    parts = {
        "analysis": analysis_at(Fraction(spec.video.fps)),
        "files": model_files(),
        "numerics": numerics_for("cpu", 2),
        "encoder": replace(ENCODER, crf=spec.video.crf, codec=spec.video.codec),
        **changes,
    }
    return make_plan(spec, **parts)


def ids(plan: Plan) -> list[str]:
    return [chunk.chunk_id for chunk in plan.manifest.chunks]


class TestChunks:
    @pytest.mark.parametrize("fps", RATES)
    @pytest.mark.parametrize("chunk_seconds", [0.001, 0.37, 1, 2.5, 10, 1e6])
    def test_every_frame_is_in_exactly_one(self, fps: str, chunk_seconds: float) -> None:
        spec = make_spec(fps=fps, chunk_seconds=chunk_seconds)

        manifest = plan_of(spec).manifest

        frames = [n for chunk in manifest.chunks for n in range(chunk.start, chunk.stop)]
        assert frames == list(range(ceil(TRACK_S * Fraction(fps))))
        assert manifest.num_frames == len(frames)
        assert [chunk.index for chunk in manifest.chunks] == list(range(len(manifest.chunks)))
        length = max(1, round(Fraction(str(chunk_seconds)) * Fraction(fps)))
        assert {chunk.num_frames for chunk in manifest.chunks[:-1]} <= {length}

    @pytest.mark.parametrize("start", [0, 0.5, 1.2345, 6.9])
    @pytest.mark.parametrize("duration", [None, 0.001, 2, 3.21, 1000])
    def test_a_range_is_cut_out_of_the_whole(self, start: float, duration: float | None) -> None:
        whole = plan_of(make_spec(chunk_seconds=1000))
        part = plan_of(make_spec(start=start, duration=duration, chunk_seconds=0.7))

        manifest = part.manifest
        assert manifest.start == round(start * 60)
        rest_s = TRACK_S - Fraction(manifest.start, 60)
        wanted_s = rest_s if duration is None else min(rest_s, Fraction(str(duration)))
        assert manifest.duration_s == wanted_s
        assert manifest.num_frames == ceil(wanted_s * 60)
        np.testing.assert_array_equal(
            part.path.latents(manifest.start, manifest.start + manifest.num_frames),
            whole.path.latents(0, whole.manifest.num_frames)[
                manifest.start : manifest.start + manifest.num_frames
            ],
        )

    def test_chunk_latents_are_the_paths_on_a_fixed_grid(self) -> None:
        plan = plan_of(make_spec(start=1.1, chunk_seconds=0.65))
        whole = plan.path.latents(0, plan.path.num_frames)

        for chunk in plan.manifest.chunks:
            latents = chunk_latents(plan.path, chunk, 4)
            first = chunk.start // 4 * 4
            assert len(latents) % 4 == 0
            known = whole[first : first + len(latents)]
            np.testing.assert_array_equal(latents[: len(known)], known)

    @pytest.mark.parametrize("start", [7.1, 8, 1e5])
    def test_a_start_past_the_end_is_refused(self, start: float) -> None:
        with pytest.raises(SpecError, match=r"start: .* s lies past the end of the track.*7\.01 s"):
            plan_of(make_spec(start=start))

    def test_no_keyframes_are_refused(self) -> None:
        with pytest.raises(ModelError, match=r"no keyframes.*--keyframes"):
            plan_of(make_spec(), files=model_files(0))

    def test_one_keyframe_stands_still(self) -> None:
        plan = plan_of(make_spec(), files=model_files(1))

        assert len(np.unique(plan.path.latents(0, 100), axis=0)) == 1


SAME = [
    {"out": "/elsewhere/w.mp4"},
    {"audio": "/copy/of/a.wav"},
    {"model": "/copy/of/m"},
    {"executor": "serial"},
    {"workers": 7},
    {"work": "/somewhere"},
    {"priority": 3},
    {"crf": 18},
    {"fps": 60},
    {"fps": "60/1"},
    {"min_factor": 1},
    {"motion": "seed-exponential"},
]

CHANGED = [
    {"crf": 20},
    {"codec": "libx265"},
    {"fps": "30"},
    {"size": "64x64"},
    {"size": "64x32", "fit": "pad"},
    {"motion": "seed-linear"},
    {"keyframe_gap": 0.5},
    {"min_factor": 2},
]


class TestIdentity:
    @pytest.mark.parametrize("options", SAME, ids=str)
    def test_does_not_depend_on_where_the_work_is_done(self, options: dict[str, Any]) -> None:
        plain, other = plan_of(make_spec()), plan_of(make_spec(**options))

        assert ids(other) == ids(plain)
        assert other.manifest.render_id == plain.manifest.render_id

    @pytest.mark.parametrize("options", CHANGED, ids=str)
    def test_changes_with_what_is_seen(self, options: dict[str, Any]) -> None:
        plain, other = plan_of(make_spec()), plan_of(make_spec(**options))

        assert not set(ids(other)) & set(ids(plain))
        assert other.manifest.render_id != plain.manifest.render_id

    def test_fit_counts_where_a_size_is_given(self) -> None:
        crop, pad = (plan_of(make_spec(size="64x32", fit=fit)) for fit in ("crop", "pad"))

        assert not set(ids(crop)) & set(ids(pad))

    def test_changes_with_the_seed(self) -> None:
        found = {ids(plan_of(make_spec(seed=seed)))[0] for seed in range(20)}

        assert len(found) > 4

    def test_changes_with_the_show_and_its_episode(self) -> None:
        """A show keeps to its family of keyframes, of which every episode makes another road."""
        specs = [
            make_spec(),
            make_spec(show="Jazz"),
            make_spec(show="Jazz", episode="2023-05-01"),
            make_spec(show="Jazz", episode="2023-05-02"),
            make_spec(show="Jazz", episode="Pilot"),
            make_spec(show="Rock", episode="2023-05-02"),
        ]
        files = model_files(100)
        plans = [plan_of(spec, files=files) for spec in specs]

        assert len({plan.manifest.render_id for plan in plans}) == len(plans)
        assert len({plan.manifest.digests["keyframes"] for plan in plans}) == len(plans)
        for one, two in pairwise(plans):
            assert not set(ids(one)) & set(ids(two))

    def test_without_a_show_is_that_of_all_keyframes(self) -> None:
        """Renders of before there were shows are found again."""
        files = model_files(100)

        plain = plan_of(make_spec(episode="2023-05-01"), files=files)

        assert plain.manifest.digests["keyframes"] == array_digest(files.keyframes)
        assert ids(plain) == ids(plan_of(make_spec(), files=files))

    def test_changes_with_the_model_and_the_numerics(self) -> None:
        plain = plan_of(make_spec())
        others = [
            plan_of(make_spec(), files=replace(model_files(), digest="another")),
            plan_of(make_spec(), numerics=replace(numerics_for("cpu", 2), dtype="bfloat16")),
            plan_of(make_spec(), numerics=numerics_for("cpu", 1)),
            plan_of(make_spec(), numerics=replace(numerics_for("cpu", 2), torch_version="1.0")),
            plan_of(make_spec(), encoder=replace(ENCODER, threads=1)),
            plan_of(make_spec(), encoder=replace(ENCODER, version="6.0")),
        ]

        for other in others:
            assert not set(ids(other)) & set(ids(plain))

    def test_changed_decay_changes_what_moves(self) -> None:
        """The envelope changes, so do the latents: the features' settings need no hash."""
        changed = analysis_at(Fraction(60))
        features = replace(
            changed.features, decay_exponential=changed.features.decay_exponential * 0.5
        )

        plain = plan_of(make_spec(chunk_seconds=1))
        other = plan_of(
            make_spec(chunk_seconds=1, decay_rate=0.5), analysis=replace(changed, features=features)
        )

        # the last chunk is one frame on a keyframe, where no envelope moves anything
        assert not set(ids(other)[:-1]) & set(ids(plain))

    def test_an_analysis_knows_the_decay(self) -> None:
        options = {
            "decay_time": 0.5,
            "decay_rate": 0.5,
            "decay_shape": "proportional",
            "normalise": "rolling",
        }

        for name, value in options.items():
            spec = make_spec(**{name: value})
            job = analysis_job(spec.audio, spec.video.fps, spec.features)
            assert getattr(job.settings, name) == value

    def test_a_range_reuses_the_chunks_of_the_whole(self) -> None:
        """Chunks on the same frames are the same, in whatever render they lie."""
        whole = plan_of(make_spec(chunk_seconds=1))
        part = plan_of(make_spec(chunk_seconds=1, start=2, duration=3))

        assert ids(part) == ids(whole)[2:5]
        assert part.manifest.render_id != whole.manifest.render_id

    def test_chunks_of_another_length_have_names_of_their_own(self) -> None:
        one, two = (plan_of(make_spec(chunk_seconds=seconds)) for seconds in (1, 2))

        assert not set(ids(one)) & set(ids(two))

    def test_ids_are_file_names(self) -> None:
        for chunk_id in ids(plan_of(make_spec())):
            assert len(chunk_id) == 40
            assert chunk_id.isalnum()


class TestManifest:
    def test_says_all_that_made_it(self) -> None:
        manifest = plan_of(make_spec(fps="30000/1001", crf=3)).manifest

        assert manifest.fps == Fraction(30000, 1001)
        assert manifest.size == (32, 24)
        assert manifest.digests.keys() == {"audio", "features", "keyframes", "model"}
        assert manifest.spec["video"]["crf"] == 3
        assert "run" not in manifest.spec
        assert manifest.numerics == numerics_for("cpu", 2)

    def test_is_plain_data(self) -> None:
        import json

        from asha_ray.storage.manifest import to_plain

        data = json.loads(json.dumps(to_plain(plan_of(make_spec()).manifest)))

        assert data["version"] == 1
        assert data["frames"] == sum(stop - start for start, stop, _ in data["chunks"])


class TestSize:
    @pytest.mark.parametrize(
        ("own", "asked", "expected"),
        [
            ((448, 448), None, (448, 448)),
            ((101, 77), None, (100, 76)),
            ((101, 77), "640x360", (640, 360)),
            ((1, 1), "2x2", (2, 2)),
        ],
    )
    def test_is_as_asked_or_the_models_own(
        self, own: tuple[int, int], asked: str | None, expected: tuple[int, int]
    ) -> None:
        assert video_size(make_spec(size=asked), own) == expected

    @pytest.mark.parametrize("own", [(1, 64), (64, 1)])
    def test_one_pixel_needs_a_size(self, own: tuple[int, int]) -> None:
        with pytest.raises(SpecError, match="give --size"):
            video_size(make_spec(), own)


def test_work_lies_beside_the_output_where_nothing_is_said() -> None:
    assert work_uri(make_spec(out="/videos/v.mp4")) == "/videos/.asha"
    assert work_uri(make_spec(out="s3://bucket/a/v.mp4")) == "s3://bucket/a/.asha"
    assert work_uri(make_spec(out="s3://bucket/v.mp4")) == "s3://bucket/.asha"
    assert work_uri(make_spec(work="s3://b/w")) == "s3://b/w"


def test_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert absolute("a b.wav") == str(tmp_path / "a b.wav")
    assert absolute("/a.wav") == "/a.wav"
    assert absolute("s3://b/k") == "s3://b/k"


def test_an_encoder_that_ffmpeg_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module.ffmpeg, "encoders", lambda: frozenset({"libx264"}))

    assert encoder_settings(make_spec(crf=7)).crf == 7
    with pytest.raises(SpecError, match=r"video\.codec: this ffmpeg has no libx265"):
        encoder_settings(make_spec(codec="libx265"))


def test_what_does_not_fit_in_memory_is_refused() -> None:
    """In that of a machine that renders: a cluster's head may be small."""
    numerics = numerics_for("cpu", 2)
    check_memory(model_files(), numerics, 1e9)
    with pytest.raises(ResourceError, match=r"pictures of 32x24 at a time needs about .* GB"):
        check_memory(model_files(), numerics, 1000)
    check_memory(model_files(), replace(numerics, device="cuda"), 1000)


def test_a_workers_memory_grows_with_its_video_and_on_cpus_with_its_decoders() -> None:
    """What Ray is asked for keeps a node from being overfilled, and small ones usable."""

    def needed(device: str, size: tuple[int, int], cores: int) -> int:
        numerics = replace(numerics_for("cpu", 1), device=device)
        job = WorkerJob("m", numerics, ENCODER, size, "crop", Fraction(60), "w", cores=cores)
        return worker_bytes(model_files(), job)

    small, large = (448, 448), (3840, 2160)
    assert needed("cpu", small, 2) < 1 << 30
    assert needed("cpu", large, 2) - needed("cpu", small, 2) > 1e9
    assert needed("cpu", small, 8) > needed("cpu", small, 2)
    assert needed("cuda", small, 8) == needed("cuda", small, 2)
