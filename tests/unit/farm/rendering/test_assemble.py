"""The last stage: which sound a video gets, what it says of itself, and when it appears."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

from asha_ray.errors import EncodeError, SegmentError
from asha_ray.farm.rendering import assemble as stage
from asha_ray.farm.rendering.assemble import AssemblyJob, assemble, joined, publish
from asha_ray.storage.keys import file_digest
from asha_ray.storage.local import LocalStorage
from asha_ray.storage.work import WorkRoot
from asha_ray.values import Chapter, EncoderSettings, Manifest, Numerics, Segment, Tags
from asha_ray.video.probe import probe
from asha_ray.video.stitch import stitch
from tests.media import convert, music, silent_video, write_sound

FPS = Fraction(30)
SECONDS = 1


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A work root with one segment of a second, and a track of that length as mp3 and wav."""
    folder = tmp_path_factory.mktemp("media")
    wav = write_sound(folder / "track.wav", music(SECONDS, num_channels=2))
    convert(wav, folder / "track.mp3", "-c:a", "libmp3lame", "-q:a", "4")
    path = silent_video(folder / "segment.mp4", "-preset", "ultrafast", seconds=SECONDS)
    segment = Segment("c0", file_digest(path), path.stat().st_size, 30, 1.0, "here")
    WorkRoot(str(folder / "work")).upload_segment(path, segment)
    return folder, segment


@pytest.fixture
def job(media, tmp_path):
    folder, segment = media
    manifest = Manifest(
        render_id="r0",
        spec={"video": {"sound": "copy"}},
        digests={},
        fps=FPS,
        size=(64, 48),
        numerics=Numerics("cpu", "float32", False, 1),
        encoder=EncoderSettings("libx264", 18, "ultrafast", 1, ""),
        start=0,
        num_frames=30,
        duration_s=Fraction(SECONDS),
    )
    return AssemblyJob(
        manifest=manifest,
        segments=(segment,),
        audio=str(folder / "track.mp3"),
        output=str(tmp_path / "out" / "v.mp4"),
        work=str(folder / "work"),
        model_summary={},
    )


def _record(job):
    return json.loads(Path(f"{job.output}.json").read_text())


def _packets(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def _names(job):
    return sorted(path.name for path in Path(job.output).parent.iterdir())


def test_a_copied_track_is_in_the_video_byte_for_byte(job):
    """An archive's sound must lose nothing by becoming a video."""
    report = assemble(job)
    assert (report.audio_codec, report.problems()) == ("mp3float", [])
    assert _record(job)["sound"] == "copied mp3"
    assert _packets(job.output) == _packets(job.audio)


def test_segments_and_sound_alone_decide_the_file(job, tmp_path):
    """Renders of one show on two machines must have one digest."""
    other = replace(job, output=str(tmp_path / "other.mp4"))
    assemble(job)
    assemble(other)
    assert _record(job)["sha256"] == _record(other)["sha256"] == file_digest(Path(job.output))


ENCODED = {
    "not-asked-for": lambda job: replace(job, manifest=replace(job.manifest, spec={})),
    "aac": lambda job: replace(
        job, manifest=replace(job.manifest, spec={"video": {"sound": "aac"}})
    ),
    "damaged": lambda job: replace(job, num_replaced=1),
    "of-no-use-there": lambda job: replace(job, audio=job.audio.replace(".mp3", ".wav")),
}


@pytest.mark.parametrize("kind", ENCODED)
def test_the_sound_is_encoded_where_it_may_not_or_cannot_be_copied(job, kind):
    job = ENCODED[kind](job)
    report = assemble(job)
    assert (report.audio_codec, report.problems()) == ("aac", [])
    assert _record(job)["sound"] == "aac"


@pytest.mark.parametrize(
    ("start", "duration_s"), [(15, Fraction(1)), (0, Fraction(1, 2))], ids=["late", "short"]
)
def test_a_part_of_a_track_is_never_copied(job, start, duration_s, monkeypatch):
    """It would begin with the sound of the track's beginning, or go on when it should end."""
    asked = []

    def encode(pcm, path):
        asked.append(path.name)
        raise EncodeError("on purpose")

    monkeypatch.setattr(stage, "encode_audio", encode)
    job = replace(job, manifest=replace(job.manifest, start=start, duration_s=duration_s))
    with pytest.raises(EncodeError, match="on purpose"):
        assemble(job)
    assert asked == ["sound.m4a"]


def test_a_copy_that_does_not_fit_the_picture_is_not_kept(job, monkeypatch):
    def too_short(source, path, duration_s):
        convert(source, path, "-c", "copy", "-t", "0.5", "-f", "mp4")
        return "mp3"

    monkeypatch.setattr(stage, "copy_audio", too_short)
    report = assemble(job)
    assert (report.audio_codec, report.problems()) == ("aac", [])
    assert _record(job)["sound"] == "aac"


@pytest.mark.parametrize(
    ("error", "joins"),
    [
        (EncodeError("no muxer"), ["copied.m4a", "sound.m4a"]),
        (SegmentError("torn"), ["copied.m4a"]),
    ],
    ids=["muxer", "segment"],
)
def test_a_copy_that_cannot_be_joined_is_not_kept(job, monkeypatch, error, joins):
    """A show whose sound no muxer takes would never get its video; a torn segment is no sound's."""
    joined_with = []

    def fail(segments, sound, *more):
        joined_with.append(sound.name)
        if sound.name == "copied.m4a":
            raise error
        return stitch(segments, sound, *more)

    monkeypatch.setattr(stage, "stitch", fail)
    if isinstance(error, SegmentError):
        with pytest.raises(SegmentError, match="torn"):
            assemble(job)
    else:
        assert assemble(job).audio_codec == "aac"
    assert joined_with == joins


def test_the_track_is_fetched_once(job, monkeypatch):
    """In a bucket each copy is a download of the whole show, and the machine waits for it."""
    fetched = []

    class Counting(LocalStorage):
        def local_copy(self, uri):
            fetched.append(uri)
            return super().local_copy(uri)

    monkeypatch.setattr(stage, "storage_of", lambda uri: Counting())
    job = ENCODED["of-no-use-there"](job)
    assert assemble(job).audio_codec == "aac"
    assert fetched == [job.audio]


def test_what_is_said_of_the_recording_is_in_the_video(job):
    tags = Tags(title="Nacht", chapters=(Chapter(0, "a"), Chapter(0.5, "b"), Chapter(7, "c")))
    assemble(replace(job, tags=tags))
    with av.open(job.output) as container:
        assert container.metadata["title"] == "Nacht"
        chapters = [(item["start"], item["end"]) for item in container.chapters()]
    assert chapters == [(0, 500), (500, 1000)]
    assert probe(Path(job.output)).problems() == []


def test_nothing_appears_before_it_is_published(job):
    """Between the two a video is checked, and it may be found wanting."""
    with joined(job) as made:
        assert made.report.frames == made.record["frames"] == 30
        assert made.record["sha256"] == file_digest(made.video)
        assert [name for name in _names(job) if not name.startswith(".asha-")] == []
    assert _names(job) == []


def test_an_older_record_is_there_until_its_video_goes(job):
    assemble(job)
    older = _record(job)
    with joined(replace(job, tags=Tags(title="new"))) as made:
        assert _record(job) == older
        publish(job, made)
        assert _record(job) == made.record
    assert _record(job)["sha256"] == file_digest(Path(job.output)) != older["sha256"]
    assert _names(job) == ["v.mp4", "v.mp4.json"]


def test_steps_come_in_their_order(job, monkeypatch):
    """A crash is tried at each of them; one that is out of place would be tried for nothing."""
    reached = []
    monkeypatch.setattr(stage, "reach", reached.append)
    assemble(job)
    assert reached == ["joining", "joined", "forgotten", "published", "finished"]


def test_frames_that_are_missing_end_it_and_nothing_appears(job):
    job = replace(job, manifest=replace(job.manifest, num_frames=31))
    with pytest.raises(EncodeError, match=r"checking the finished video: 30 frames, not 31"):
        assemble(job)
    assert _names(job) == []
