"""The features file: a public format, frozen here, and a gate for damaged ones."""

import pickle
import tracemalloc
import zipfile
from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pytest

from asha_ray.audio.features import analyze_clip
from asha_ray.audio.features_file import read_features, write_features
from asha_ray.errors import FeaturesError
from asha_ray.values import AudioClip, Features
from tests.media import music

LAYOUT = {
    "version": ((), "int64"),
    "fps": ((2,), "int64"),
    "duration_s": ((), "float64"),
    "onset_info": (("n", 3), "float64"),
    "onset_strength": (("n",), "float32"),
    "beat_frames": (("k",), "int64"),
    "beat_times": (("k",), "float64"),
    "tempo": ((), "float64"),
    "decay_linear": (("n",), "float32"),
    "decay_exponential": (("n",), "float32"),
    "rms": (("n",), "float32"),
    "bands": (("n", 3), "float32"),
    "chroma": (("n", 12), "float32"),
    "centroid": (("n",), "float32"),
    "section_times": (("a",), "float64"),
    "track_times": (("b",), "float64"),
    "speech": (("s",), "bool"),
    "silence": (("s",), "bool"),
}


@pytest.fixture(scope="module")
def features():
    return analyze_clip(AudioClip(music(3.0), 44_100), Fraction(30000, 1001))


@pytest.fixture
def path(features, tmp_path):
    path = tmp_path / "f.npz"
    write_features(features, path)
    return path


def test_the_files_layout_is_frozen(features, path):
    """Notebooks read these names; an unknown array in it is a mistake as well."""
    sizes = {
        "n": features.num_frames,
        "k": len(features.beat_frames),
        "a": len(features.section_times),
        "b": len(features.track_times),
        "s": len(features.speech),
    }
    with np.load(path, allow_pickle=False) as file:
        found = {name: (file[name].shape, str(file[name].dtype)) for name in file.files}
        assert file["version"] == 1
        assert file["fps"].tolist() == [30000, 1001]
    expected = {
        name: (tuple(sizes.get(side, side) for side in shape), kind)
        for name, (shape, kind) in LAYOUT.items()
    }
    assert found == expected


def test_what_is_written_is_read_back_exactly(features, path):
    """Features are read back rather than computed again: a rounded float would change hashes."""
    again = read_features(path)
    for field in fields(Features):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(features, field.name))
    np.testing.assert_array_equal(again.onset_info, features.onset_info)


def test_silence_can_be_kept_too(tmp_path):
    silent = analyze_clip(AudioClip(np.zeros(4410, np.float32), 44_100), Fraction(24))
    write_features(silent, tmp_path / "f.npz")
    assert len(read_features(tmp_path / "f.npz").beat_frames) == 0


def test_no_suffix_is_added_to_the_name(features, tmp_path):
    write_features(features, tmp_path / "features")
    assert [item.name for item in tmp_path.iterdir()] == ["features"]


class Bomb:
    """Unpickling it raises an error that no reader expects."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled!')",))


def _pickled_array(path):
    arrays = dict(np.load(path))
    arrays["rms"] = np.array([Bomb()], dtype=object)
    np.savez(path, **arrays)


def _flip(path):
    data = bytearray(path.read_bytes())
    for position in range(200, 260):
        data[position] ^= 0xFF
    path.write_bytes(data)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def _single_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(4))


def _foreign_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("letter.txt", "hello")


BROKEN = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no features"),
    "pickle": lambda path: path.write_bytes(pickle.dumps(Bomb())),
    "pickled-array": _pickled_array,
    "bytes-flipped": _flip,
    "truncated": _truncate,
    "single-array": _single_array,
    "foreign-zip": _foreign_zip,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_features_file_is_refused_in_a_line(path, kind):
    BROKEN[kind](path)
    with pytest.raises(FeaturesError, match=r"is no features file .*asha-ray analyze") as caught:
        read_features(path, "s3://b/f.npz")
    assert str(caught.value).startswith("reading features s3://b/f.npz: ")


@pytest.mark.parametrize("at", [0.15, 0.3, 0.5, 0.7, 0.9])
def test_damage_anywhere_is_seen_or_does_no_harm(features, path, at):
    data = bytearray(path.read_bytes())
    start = round(len(data) * at)
    data[start : start + 16] = bytes(value ^ 0x5A for value in data[start : start + 16])
    path.write_bytes(data)
    try:
        again = read_features(path)
    except FeaturesError:
        return
    for field in fields(Features):  # then it hit what is not read: `onset_info` is computed
        np.testing.assert_array_equal(getattr(again, field.name), getattr(features, field.name))


def test_a_folder_is_no_features_file(tmp_path):
    with pytest.raises(FeaturesError, match="is no features file"):
        read_features(tmp_path)


def _changed(path, **changes):
    arrays = dict(np.load(path))
    arrays.update(changes)
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def test_a_newer_version_asks_for_an_update(path):
    _changed(path, version=np.int64(2))
    with pytest.raises(FeaturesError, match=r"version 2 is newer than 1.*update asha-ray"):
        read_features(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"rms": np.zeros(3)},
        {"onset_strength": np.zeros(0)},
        {"bands": np.zeros((4, 2))},
        {"beat_frames": np.array([10**6])},
        {"beat_frames": np.array([-1])},
        {"beat_frames": np.array([[1]])},
        {"beat_times": np.zeros(99)},
        {"fps": np.array([-30, 1])},
        {"fps": np.array([0, 1])},
        {"fps": np.array([30, 0])},
        {"fps": np.array([30])},
        {"rms": None},
        {"version": None},
        {"version": np.array([1, 2])},
        {"tempo": np.array(["fast"])},
    ],
    ids=lambda changes: "-".join(f"{k}:{np.shape(v)}" for k, v in changes.items()),
)
def test_arrays_that_do_not_fit_are_refused(path, changes):
    """A wrong length would only show hours later, as an index error on a worker."""
    _changed(path, **changes)
    with pytest.raises(FeaturesError, match="asha-ray analyze"):
        read_features(path)


@pytest.mark.parametrize("name", ["onset_strength", "decay_linear", "rms", "bands"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(features, tmp_path, name, value):
    array = getattr(features, name).copy()
    array[3] = value
    write_features(replace(features, **{name: array}), tmp_path / "f.npz")
    with pytest.raises(FeaturesError, match="do not fit"):
        read_features(tmp_path / "f.npz")


def _npy(header, data=b""):
    text = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


def _header(kind, shape):
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"


def _with_member(path, name, content, claimed_bytes=None):
    with zipfile.ZipFile(path) as file:
        members = {item: file.read(item) for item in file.namelist()}
    members[f"{name}.npy"] = content
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for item, data in members.items():
            file.writestr(item, data)
        if claimed_bytes:
            file.getinfo(f"{name}.npy").file_size = claimed_bytes


def _many_members(path):
    with zipfile.ZipFile(path, "a") as file:
        for number in range(2000):
            file.writestr(f"s{number}/rms.npy", b"")


def _encrypted(path):
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        start = -1
        while (start := data.find(mark, start + 1)) >= 0:
            data[start + offset] |= 1
    path.write_bytes(data)


def _unknown_method(path):
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        start = -1
        while (start := data.find(mark, start + 1)) >= 0:
            data[start + offset] = 99
    path.write_bytes(data)


BOMB = 1 << 31

HOSTILE = {
    "bomb": lambda path: _with_member(
        path, "rms", _npy(_header("|u1", (BOMB,))) + bytes(1 << 20), BOMB + 128
    ),
    "lying-shape": lambda path: _with_member(path, "rms", _npy(_header("<f4", (10**15,)))),
    "items-without-bytes": lambda path: _with_member(
        path, "speech", _npy(_header("|S0", (10**9,)))
    ),
    "texts": lambda path: _with_member(path, "tempo", _npy(_header("|S3", ()), b"120")),
    "nested-header": lambda path: _with_member(path, "rms", _npy("~" * 9000 + "1")),
    "open-header": lambda path: _with_member(path, "rms", _npy("(" * 90)),
    "many-arrays": _many_members,
    "encrypted": _encrypted,
    "unknown-method": _unknown_method,
    "stem-outside": lambda path: _with_member(path, "../rms", _npy(_header("<f4", (0,)))),
    "stem-of-escapes": lambda path: _with_member(path, "\x1b[2J/rms", _npy(_header("<f4", (0,)))),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_before_it_is_unpacked(path, kind):
    HOSTILE[kind](path)
    tracemalloc.start()
    with pytest.raises(FeaturesError, match=r"is no features file \(.+\); write one") as caught:
        read_features(path)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "changes",
    [
        {"duration_s": np.float64(np.inf)},
        {"duration_s": np.float64(np.nan)},
        {"duration_s": np.float64(-1)},
        {"duration_s": np.float64(1e300)},
        {"fps": np.array([2**62, 1])},
        {"tempo": np.float64(np.inf)},
    ],
    ids=repr,
)
def test_numbers_beyond_all_sense_are_refused(path, changes):
    """An infinite length is an OverflowError wherever frames are counted."""
    _changed(path, **changes)
    with pytest.raises(FeaturesError, match="do not fit"):
        read_features(path)
