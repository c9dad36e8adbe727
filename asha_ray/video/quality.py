"""The check of a finished video: all of it decoded once, and what somebody should look at.

ffmpeg's own filters watch and listen; their log is read line by line, so that hours take no more
memory than minutes.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av

from asha_ray import ffmpeg
from asha_ray.errors import VideoError

BLACK_S, FROZEN_S, SILENT_S = 2.0, 2.0, 5.0
"""Shorter stretches are a cut, a rest, a breath."""
BLACK_PIXEL = 0.03
"""Of the range from black to white. A frame is black if all its pixels are: bright forms on black
are what many models paint."""
STILL = 0.002
"""Mean difference of two frames, half a step of 255: an encoder alone changes less."""
SILENCE_DB = -60
EDGE_S = 1.0
EDGE_SILENCE_S = 30.0
"""Silence before and after the music is a part of many recordings; so much of it is no remark."""
MAX_STRETCHES = 100
MAX_ERRORS = 10
MAX_NAMED = 5
ABSOLUTE_GATE_LUFS = -70.0
"""What is not louder counts as silence (EBU R 128), which has no loudness."""

Stretch = tuple[float, float]
"""When it begins and ends, in seconds."""


@dataclass(frozen=True)
class Quality:
    """What a finished video shows and sounds like.

    Attributes:
        frames: that it has.
        decoded: of these, those that decode.
        duration_s: of the video.
        black: stretches of more than 2 s in which all is black.
        frozen: stretches of more than 2 s in which nothing moves.
        silent: stretches of more than 5 s in which nothing is heard.
        num_more: stretches of any kind beyond the first hundred of each.
        loudness_lufs: integrated loudness (EBU R 128); None where nothing is heard.
        true_peak_dbfs: of the sound between its samples; None where nothing is heard.
        errors: what the decoders complained of first.
        num_errors: how often they complained.
    """

    frames: int
    decoded: int
    duration_s: float
    black: tuple[Stretch, ...] = ()
    frozen: tuple[Stretch, ...] = ()
    silent: tuple[Stretch, ...] = ()
    num_more: int = 0
    loudness_lufs: float | None = None
    true_peak_dbfs: float | None = None
    errors: tuple[str, ...] = ()
    num_errors: int = 0

    @property
    def plays(self) -> bool:
        """Whether all of it decodes; what else is found is a remark."""
        return self.decoded == self.frames and not self.num_errors

    def problems(self) -> list[str]:
        """What a person should look at, a sentence each; empty when there is nothing.

        A picture that is black does not also stand still, and silence at the beginning or the end
        counts from half a minute on.
        """
        found = []
        if self.decoded < self.frames:
            found.append(f"{self.frames - self.decoded} of {self.frames} frames do not decode")
        if self.num_errors:
            times = "once" if self.num_errors == 1 else f"{self.num_errors} times"
            found.append(f"the decoder complains {times}: {self.errors[0]}")
        still = [stretch for stretch in self.frozen if not _within(stretch, self.black)]
        unheard = [stretch for stretch in self.silent if not self._is_edge(stretch)]
        found += _named("the picture is black", self.black)
        found += _named("the picture stands still", still)
        found += _named("nothing is heard", unheard)
        if self.num_more:
            found.append(f"there are {self.num_more} more such stretches than were kept")
        return found

    def _is_edge(self, stretch: Stretch) -> bool:
        start_s, stop_s = stretch
        at_edge = start_s < EDGE_S or stop_s > self.duration_s - EDGE_S
        return at_edge and stop_s - start_s <= EDGE_SILENCE_S


def check_quality(path: Path, *, duration_s: float) -> Quality:
    """Decode all of a finished video, and say what is odd about it.

    Args:
        path: a local file.
        duration_s: of its picture.

    Raises:
        VideoError: if it is no video.
    """
    try:
        with av.open(ffmpeg.file_url(path), options=ffmpeg.INPUT_OPTIONS) as container:
            frames = container.streams.video[0].frames
            has_sound = bool(container.streams.audio)
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise VideoError(f"checking {path}: it is no video that can be read ({error})") from error
    with ffmpeg.Program(_arguments(path, has_sound), stdout=True, level="level+info") as program:
        decoded = _last_frame(program.stdout)
        program.finish()
        findings = _read(program.log(), duration_s)
    return Quality(
        frames=frames,
        decoded=decoded,
        duration_s=duration_s,
        black=tuple(findings.black.kept),
        frozen=tuple(findings.frozen.kept),
        silent=tuple(findings.silent.kept),
        num_more=sum(each.num_more for each in (findings.black, findings.frozen, findings.silent)),
        loudness_lufs=findings.loudness_lufs,
        true_peak_dbfs=findings.true_peak_dbfs,
        errors=tuple(findings.errors),
        num_errors=findings.num_errors,
    )


def _arguments(path: Path, has_sound: bool) -> list[str]:
    watch = (
        f"blackdetect=d={BLACK_S}:pic_th=1:pix_th={BLACK_PIXEL},"
        # An encoder's keyframe, one in two seconds, may end a stretch; so halves are put together.
        f"freezedetect=n={STILL}:d={FROZEN_S / 2}"
    )
    listen = f"silencedetect=noise={SILENCE_DB}dB:d={SILENT_S},ebur128=peak=true:framelog=quiet"
    return [
        *("-nostats", "-progress", "pipe:1", *ffmpeg.input_arguments(path)),
        *("-map", "0:V:0", "-vf", watch, "-fps_mode", "passthrough"),
        *(("-map", "0:a:0", "-af", listen) if has_sound else ()),
        *("-f", "null", "-"),
    ]


def _last_frame(progress: Iterable[bytes]) -> int:
    """The number of frames in the last of ffmpeg's reports."""
    count = 0
    for line in progress:
        name, _, value = line.decode(errors="replace").partition("=")
        if name == "frame" and value.strip().isdigit():
            count = int(value)
    return count


class _Stretches:
    """Stretches that are long enough, those that touch made one; the first hundred are kept."""

    TOUCHING_S = 0.1

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self._latest: Stretch | None = None
        self.kept: list[Stretch] = []
        self.num_more = 0

    def add(self, start_s: float, stop_s: float) -> None:
        if self._latest and start_s - self._latest[1] <= self.TOUCHING_S:
            start_s = self._latest[0]
        else:
            self.finish()
        self._latest = start_s, stop_s

    def finish(self) -> None:
        if self._latest and self._latest[1] - self._latest[0] > self._least_s:
            if len(self.kept) < MAX_STRETCHES:
                self.kept.append(self._latest)
            else:
                self.num_more += 1
        self._latest = None


@dataclass
class _Findings:
    black: _Stretches = field(default_factory=lambda: _Stretches(BLACK_S))
    frozen: _Stretches = field(default_factory=lambda: _Stretches(FROZEN_S))
    silent: _Stretches = field(default_factory=lambda: _Stretches(SILENT_S))
    loudness_lufs: float | None = None
    true_peak_dbfs: float | None = None
    errors: list[str] = field(default_factory=list)
    num_errors: int = 0


# A recording's own tags are in the log too, after another beginning.
_BLACK = re.compile(r"\[Parsed_blackdetect_\d+ @ .*black_start:(\S+) black_end:(\S+)")
_FROZEN = re.compile(r"\[Parsed_freezedetect_\d+ @ .*freeze_(start|end): (\S+)")
_SILENT = re.compile(r"\[Parsed_silencedetect_\d+ @ .*silence_(start|end): (\S+)")
_LOUDNESS = re.compile(r"\s+I:\s+(\S+) LUFS")
_PEAK = re.compile(r"\s+Peak:\s+(\S+) dBFS")
_COMPLAINT = re.compile(r"\[(?:error|fatal|panic)\] (.*)")


def _read(log: Iterator[str], duration_s: float) -> _Findings:
    found = _Findings()
    open_since: dict[str, float] = {}
    running = (("frozen", _FROZEN, found.frozen), ("silent", _SILENT, found.silent))
    for line in log:
        if match := _BLACK.match(line):
            found.black.add(float(match[1]), float(match[2]))
        for name, pattern, stretches in running:
            match = pattern.match(line)
            if match and match[1] == "start":
                open_since[name] = max(0.0, float(match[2]))
            elif match and name in open_since:
                stretches.add(open_since.pop(name), float(match[2]))
        if (match := _LOUDNESS.match(line)) and float(match[1]) > ABSOLUTE_GATE_LUFS:
            found.loudness_lufs = float(match[1])
        if (match := _PEAK.match(line)) and match[1] != "-inf":
            found.true_peak_dbfs = float(match[1])
        if match := _COMPLAINT.match(ffmpeg.ADDRESS.sub("", line)):
            found.num_errors += 1
            if len(found.errors) < MAX_ERRORS:
                found.errors.append(match[1][:200])
    for name, _, stretches in running:
        if name in open_since:  # until the end
            stretches.add(open_since[name], duration_s)
    for stretches in (found.black, found.frozen, found.silent):
        stretches.finish()
    return found


def _within(stretch: Stretch, others: Iterable[Stretch]) -> bool:
    slack_s = _Stretches.TOUCHING_S
    return any(
        start_s - slack_s <= stretch[0] and stretch[1] <= stop_s + slack_s
        for start_s, stop_s in others
    )


def _named(what: str, stretches: Iterable[Stretch]) -> list[str]:
    sentences = [f"{what} from {start_s:.1f} to {stop_s:.1f} s" for start_s, stop_s in stretches]
    rest = len(sentences) - MAX_NAMED
    return [*sentences[:MAX_NAMED], *([f"{what} {rest} times more"] if rest > 0 else [])]
