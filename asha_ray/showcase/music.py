"""A synthesised track for the demonstration: ambient techno whose true beats are known.

The form is intro, groove, break and finale. A kick or a bright hat marks every beat in all of
them, so that the beats can be heard, and found by a beat tracker, from the first to the last.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

SAMPLE_RATE = 44100
FIRST_BEAT_S = 0.5
FADE_OUT_S = 0.35
PEAK_DBFS = -1.0
BEATS_PER_BAR = 4
ROOTS_MIDI = (45, 43, 46, 42, 44)
# Semitones above the minor key's root: i9 - VImaj7 - IIImaj7 - VII6, and so on. The first of
# each chord is the bass note's pitch class.
PROGRESSIONS = (
    ((0, 7, 10, 14, 15), (-4, 3, 7, 10, 12), (3, 7, 10, 14, 15), (-2, 5, 7, 10, 14)),
    ((0, 7, 10, 14, 15), (3, 7, 10, 14, 17), (-4, 3, 8, 10, 12), (-2, 5, 10, 12, 14)),
    ((0, 3, 7, 10, 14), (-7, 5, 8, 12, 15), (-4, 3, 7, 12, 15), (-5, 7, 10, 14, 17)),
)
ARPEGGIOS = ((1, 3, 2, 4, 3, 1, 4, 2), (4, 2, 3, 1, 2, 4, 1, 3), (1, 2, 3, 4, 2, 3, 4, 3))


@dataclass(frozen=True)
class Track:
    """A stereo track.

    Attributes:
        samples: `[num_samples, 2]` float32 in -1..1.
        sample_rate: Samples per second.
        beat_times: `[num_beats]` in seconds, ascending.
        section_times: `[num_sections]` in seconds, where each section starts; the first is 0.
        tempo_bpm: Beats per minute.
    """

    samples: NDArray[np.float32]
    sample_rate: int
    beat_times: NDArray[np.float64]
    section_times: NDArray[np.float64]
    tempo_bpm: float


@dataclass(frozen=True)
class _Score:
    """What every instrument needs to know; one section index in 0..3 and one chord per bar."""

    num_samples: int
    beat_s: float
    beat_times: FloatArray
    bar_sections: NDArray[np.int64]
    root_midi: int
    progression: tuple[tuple[int, ...], ...]
    arpeggio: tuple[int, ...]

    def bar_time(self, bar: int) -> float:
        return FIRST_BEAT_S + bar * BEATS_PER_BAR * self.beat_s

    def chord(self, bar: int) -> tuple[int, ...]:
        return self.progression[bar % len(self.progression)]

    def section_at_beat(self, beat: int) -> int:
        return int(self.bar_sections[beat // BEATS_PER_BAR])


def compose(duration_s: float = 24.0, tempo_bpm: float = 120.0, seed: int = 0) -> Track:
    """Compose a track.

    Args:
        duration_s: Length in seconds, at least 4.
        tempo_bpm: Beats per minute, 60..200.
        seed: Picks the key, the chords, the arpeggio and the small variations.

    Returns:
        The track, at 44.1 kHz with its peak at -1 dBFS.
    """
    rng = np.random.default_rng(seed)
    score = _write_score(duration_s, tempo_bpm, rng)
    duck = _duck(score)
    drums = _play_drums(score, rng)
    chords = _play_pad(score, rng) * duck
    melody = _play_arpeggio(score, rng) * (0.4 + 0.6 * duck)
    bass = _play_bass(score) * duck
    wet = _reverberate(0.55 * chords + 0.8 * melody + 0.05 * drums, rng) * (0.3 + 0.7 * duck)
    mix = drums + 0.8 * bass + 1.7 * chords + 1.5 * melody + 0.9 * wet

    fade_s = (score.num_samples - np.arange(score.num_samples)) / SAMPLE_RATE
    mix = np.tanh(1.1 * mix) * np.clip(fade_s / FADE_OUT_S, 0.0, 1.0) ** 1.5
    mix *= 10.0 ** (PEAK_DBFS / 20.0) / np.abs(mix).max()
    starts = [score.bar_time(int(bar)) for bar in np.flatnonzero(np.diff(score.bar_sections)) + 1]
    return Track(
        samples=np.ascontiguousarray(mix.T, dtype=np.float32),
        sample_rate=SAMPLE_RATE,
        beat_times=score.beat_times,
        section_times=np.array([0.0, *starts]),
        tempo_bpm=tempo_bpm,
    )


def _write_score(duration_s: float, tempo_bpm: float, rng: np.random.Generator) -> _Score:
    """Lay out beats, sections, key and patterns."""
    if duration_s < 4.0 or not 60.0 <= tempo_bpm <= 200.0:
        raise ValueError(
            f"need duration_s >= 4 and tempo_bpm in 60..200, got {duration_s} and {tempo_bpm}"
        )
    beat_s = 60.0 / tempo_bpm
    # The last beat needs room to sound before the fade takes it away.
    num_beats = int((duration_s - FIRST_BEAT_S - FADE_OUT_S - 0.1) / beat_s) + 1
    num_bars = -(-num_beats // BEATS_PER_BAR)
    bounds = np.rint(np.array([0.25, 0.58, 0.75]) * num_bars)
    return _Score(
        num_samples=round(duration_s * SAMPLE_RATE),
        beat_s=beat_s,
        beat_times=np.asarray(FIRST_BEAT_S + beat_s * np.arange(num_beats), dtype=np.float64),
        bar_sections=np.searchsorted(bounds, np.arange(num_bars), side="right"),
        root_midi=ROOTS_MIDI[int(rng.integers(len(ROOTS_MIDI)))],
        progression=PROGRESSIONS[int(rng.integers(len(PROGRESSIONS)))],
        arpeggio=ARPEGGIOS[int(rng.integers(len(ARPEGGIOS)))],
    )


def _hertz(midi: float) -> float:
    """Frequency of a MIDI note number."""
    return float(440.0 * 2.0 ** ((midi - 69.0) / 12.0))


def _seconds(length_s: float) -> FloatArray:
    """Sample times `[n]` of a sound that lasts `length_s`."""
    return np.arange(int(length_s * SAMPLE_RATE)) / SAMPLE_RATE


def _add(track: FloatArray, sound: FloatArray, time_s: float, left: float, right: float) -> None:
    """Add a mono sound `[n]` to a stereo track `[2, num_samples]` in place, cut at its end."""
    start = round(time_s * SAMPLE_RATE)
    piece = sound[: max(0, track.shape[1] - start)]
    track[0, start : start + len(piece)] += left * piece
    track[1, start : start + len(piece)] += right * piece


def _num_fft(num_samples: int) -> int:
    """At least `num_samples`, and a length whose Fourier transform is fast."""
    return -(-num_samples // 16384) * 16384


def _filter(
    sound: FloatArray, low_hz: float | None = None, high_hz: float | None = None
) -> FloatArray:
    """Keep what lies above `low_hz` and below `high_hz`, at 12 dB per octave, along the last axis.

    The filter shifts no phase, so that a filtered drum stays on its beat.
    """
    num_samples = sound.shape[-1]
    num_fft = _num_fft(num_samples + SAMPLE_RATE // 20)
    hertz = np.maximum(np.fft.rfftfreq(num_fft, 1.0 / SAMPLE_RATE), 1e-3)
    gain = np.ones_like(hertz)
    if low_hz is not None:
        gain /= np.sqrt(1.0 + (low_hz / hertz) ** 4)
    if high_hz is not None:
        gain /= np.sqrt(1.0 + (hertz / high_hz) ** 4)
    filtered = np.fft.irfft(np.fft.rfft(sound, num_fft) * gain, num_fft)
    return np.asarray(filtered[..., :num_samples])


def _duck(score: _Score) -> FloatArray:
    """Gain `[num_samples]` that dips at each kick and swells back, as a sidechain would."""
    time_s = np.arange(score.num_samples) / SAMPLE_RATE - FIRST_BEAT_S
    since_beat_s = np.where(time_s < 0.0, score.beat_s, time_s % score.beat_s)
    depths = np.array([0.45, 0.7, 0.35, 0.7])
    beat = np.clip(time_s / score.beat_s, 0, len(score.beat_times) - 1).astype(np.int64)
    depth = depths[score.bar_sections[beat // BEATS_PER_BAR]]
    dip = np.minimum(1.0, since_beat_s / 0.004) * np.exp(-((since_beat_s / 0.16) ** 2))
    return np.asarray(1.0 - depth * dip)


def _drum_kit(rng: np.random.Generator) -> dict[str, FloatArray]:
    """One mono sound per drum, each about 1 at its peak."""
    kick_s = _seconds(0.34)
    sweep = 2.0 * np.pi * (48.0 * kick_s + 5.4 * (1.0 - np.exp(-kick_s / 0.035)))
    kick = np.sin(sweep) * np.exp(-kick_s / 0.12) + 0.25 * np.exp(-kick_s / 0.002)
    clap_s = _seconds(0.25)
    noise = _filter(rng.standard_normal(len(clap_s)), low_hz=900.0, high_hz=6000.0)
    bursts = sum(np.exp(-np.maximum(clap_s - d, 0) / 0.008) * (clap_s >= d) for d in (0.0, 0.011))
    clap = 0.6 * noise * (0.6 * bursts + 0.8 * np.exp(-clap_s / 0.07))
    hat_s = _seconds(0.3)
    hiss = 0.5 * _filter(rng.standard_normal(len(hat_s)), low_hz=7000.0, high_hz=12000.0)
    return {
        "kick": kick * np.clip((0.34 - kick_s) / 0.05, 0.0, 1.0),
        "clap": clap,
        "hat": hiss * np.exp(-hat_s / 0.022),
        "open": hiss * np.exp(-hat_s / 0.075),
    }


def _play_drums(score: _Score, rng: np.random.Generator) -> FloatArray:
    """Drums `[2, num_samples]`; every beat has at least a kick with a bright hat on top."""
    track = np.zeros((2, score.num_samples))
    kit = _drum_kit(rng)
    for beat, time_s in enumerate(score.beat_times):
        section = score.section_at_beat(beat)
        full = section in (1, 3)
        _add(track, kit["kick"], time_s, *((0.80, 0.80) if full else (0.55, 0.55)))
        accent = 0.34 if full else 0.30
        _add(track, kit["hat"], time_s, accent, accent)
        if full and beat % 2 == 1:
            _add(track, kit["clap"], time_s, 0.34, 0.40)
        if full:
            _add(track, kit["open"], time_s + score.beat_s / 2.0, 0.15, 0.20)
        if section == 3:
            for quarter in (0.25, 0.75):
                level = 0.07 + 0.03 * rng.random()
                _add(track, kit["hat"], time_s + quarter * score.beat_s, 1.2 * level, 0.8 * level)
    return track


def _play_pad(score: _Score, rng: np.random.Generator) -> FloatArray:
    """Slow chords `[2, num_samples]` of detuned saws whose filter opens and closes."""
    track = np.zeros((2, score.num_samples))
    bar_s = BEATS_PER_BAR * score.beat_s
    for bar in range(len(score.bar_sections)):
        # The first chord fades in from the very start, the others overlap to blend.
        lead_in_s = FIRST_BEAT_S if bar == 0 else 0.12
        sound_s = _seconds(bar_s + lead_in_s + 0.35)
        envelope = np.clip(sound_s / (lead_in_s + 0.15), 0.0, 1.0)
        envelope *= np.clip((sound_s[-1] - sound_s) / 0.45, 0.0, 1.0)
        for side in range(2):
            chord = np.zeros_like(sound_s)
            for tone in score.chord(bar)[1:]:
                for cents in (-7.0, 6.0):
                    pitch = score.root_midi + 12 + tone + (cents + 3.0 * side) / 100.0
                    chord += (_hertz(pitch) * sound_s + rng.random()) % 1.0 - 0.5
            gains = (1.0 - side, float(side))
            _add(track, 0.085 * chord * envelope, score.bar_time(bar) - lead_in_s, *gains)
    dark = _filter(track, low_hz=130.0, high_hz=420.0)
    bright = _filter(track, low_hz=130.0, high_hz=2200.0)
    time_s = np.arange(score.num_samples) / SAMPLE_RATE
    sweep = 0.45 - 0.35 * np.cos(2.0 * np.pi * (time_s - FIRST_BEAT_S) / (4.0 * bar_s))
    return np.asarray(dark + sweep * (bright - dark))


def _play_bass(score: _Score) -> FloatArray:
    """Bass `[2, num_samples]` on the off-beats; it rests in the intro and holds in the break."""
    track = np.zeros((2, score.num_samples))
    for beat, time_s in enumerate(score.beat_times):
        section = score.section_at_beat(beat)
        bar = beat // BEATS_PER_BAR
        pitch = score.root_midi - 12 + score.chord(bar)[0]
        pitch += 12 if pitch < 30 else 0
        pattern = {0: (), 1: (0.5, 0.75), 2: (0.5,), 3: (0.25, 0.5, 0.75)}[section]
        for offset in pattern:
            octave = 12 if section == 3 and offset == 0.75 and beat % 2 == 1 else 0
            sound_s = _seconds(score.beat_s * (0.24 if section != 2 else 0.5))
            phase = 2.0 * np.pi * _hertz(pitch + octave) * sound_s
            tone = np.sin(phase) + 0.35 * np.sin(2.0 * phase) + 0.12 * np.sin(3.0 * phase)
            envelope = np.minimum(sound_s / 0.012, 1.0) * np.exp(-sound_s / 0.22)
            envelope *= np.clip((sound_s[-1] - sound_s) / 0.02, 0.0, 1.0)
            _add(track, 0.34 * tone * envelope, time_s + offset * score.beat_s, 1.0, 1.0)
    return track


def _play_arpeggio(score: _Score, rng: np.random.Generator) -> FloatArray:
    """Plucked sixteenths and eighths `[2, num_samples]` with ping-pong echoes."""
    track = np.zeros((2, score.num_samples))
    levels = (0.05, 0.12, 0.10, 0.13)
    for beat, time_s in enumerate(score.beat_times):
        section = score.section_at_beat(beat)
        chord = score.chord(beat // BEATS_PER_BAR)
        steps = (0, 2) if section in (0, 2) else (0, 1, 2, 3)
        for step in steps:
            index = (4 * beat + step) % len(score.arpeggio)
            octave = 36 if section == 3 and step == 3 else 24
            pitch = score.root_midi + octave + chord[score.arpeggio[index]]
            sound_s = _seconds(0.45)
            phase = 2.0 * np.pi * _hertz(pitch) * sound_s
            tone = np.sin(phase + 1.4 * np.exp(-sound_s / 0.06) * np.sin(2.0 * phase))
            tone *= np.minimum(sound_s / 0.003, 1.0) * np.exp(-sound_s / 0.11)
            level = levels[section] * (1.0 if step == 0 else 0.6 + 0.2 * rng.random())
            _add(track, level * tone, time_s + step * score.beat_s / 4.0, 0.8, 0.7)
    echoes = track.copy()
    for repeat, gain in enumerate((0.42, 0.26, 0.15), start=1):
        delay = round(0.75 * repeat * score.beat_s * SAMPLE_RATE)
        if delay < score.num_samples:
            echoes[repeat % 2, delay:] += gain * track.mean(axis=0)[:-delay]
    return echoes


def _reverberate(dry: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The reverberation alone `[2, num_samples]` of `dry`, as of a large soft room."""
    tail_s = _seconds(1.8)
    tail = rng.standard_normal((2, len(tail_s))) * np.exp(-tail_s / 0.38)
    tail = _filter(tail * np.minimum(tail_s / 0.03, 1.0), low_hz=200.0, high_hz=4500.0)
    tail /= np.sqrt((tail**2).sum(axis=1, keepdims=True))
    num_fft = _num_fft(dry.shape[1] + tail.shape[1])
    wet = np.fft.irfft(np.fft.rfft(dry, num_fft) * np.fft.rfft(tail, num_fft), num_fft)
    return np.asarray(wet[:, : dry.shape[1]])
