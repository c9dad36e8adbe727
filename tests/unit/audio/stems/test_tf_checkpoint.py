"""Checkpoints: TensorFlow's own is read exactly, a damaged one is an error and nothing worse."""

import base64
import tracemalloc

import numpy as np
import pytest

from asha_ray.audio.stems.tf_checkpoint import MAX_INDEX_BYTES, MAX_KEY_BYTES, Checkpoint
from asha_ray.errors import StemsError
from tests.unit.audio.stems.bundles import entry, table, write_bundle

# Written by TensorFlow 2.12.1's tf.compat.v1.train.Saver.
INDEX = (
    "AAAGCAEaAggBAAsPY29udjJkL2JpYXMIARIEEgIIAigINVqr/7wHBhVrZXJuZWwIARIIEgIIAhICCAMgCCgYNQFq"
    "9IwGBxFfMS9iaWFzCAESBBICCAEgICgENQY4Jx8ACw1nbG9iYWxfc3RlcAgJEgAgJCgINX81vNQAAAAAAQAAAAAf"
    "strfAAAAAAEAAAAAwPKhsAABA2gAggEAAAAAAQAAAACzysd1hwEIlAEPAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAFf7gIskdUfb"
)
DATA = "AACAvwAAgD4AAIA/AAAAQAAAQEAAAIBAAACgQAAA0EAAAAA/ywT7cR8BAAA="
VALID = entry(np.zeros(0, np.float32), 0)


@pytest.fixture
def genuine(tmp_path):
    (tmp_path / "model.index").write_bytes(base64.b64decode(INDEX))
    (tmp_path / "model.data-00000-of-00001").write_bytes(base64.b64decode(DATA))
    return tmp_path


def read_all(folder) -> dict[str, np.ndarray]:
    checkpoint = Checkpoint(folder)
    return {name: checkpoint.read(name) for name in checkpoint.entries}


def test_what_tensorflow_wrote_is_read(genuine):
    found = read_all(genuine)
    assert set(found) == {"conv2d/kernel", "conv2d/bias", "conv2d_1/bias", "global_step"}
    np.testing.assert_array_equal(found["conv2d/kernel"], np.float32([[1, 2, 3], [4, 5, 6.5]]))
    np.testing.assert_array_equal(found["conv2d/bias"], np.float32([-1, 0.25]))
    assert found["global_step"] == 1234567890123
    assert found["conv2d/kernel"].dtype == np.float32


def test_many_blocks_and_shared_prefixes(tmp_path):
    rng = np.random.default_rng(3)
    variables = {
        f"layer_{number}/{leaf}": rng.normal(size=(number % 5 + 1, 3)).astype(np.float32)
        for number in range(150)
        for leaf in ("kernel", "bias")
    }
    write_bundle(tmp_path, variables)
    found = read_all(tmp_path)
    assert set(found) == set(variables)
    for name, values in variables.items():
        np.testing.assert_array_equal(found[name], values)


def is_damaged(folder) -> bool:
    try:
        read_all(folder)
    except StemsError as error:
        return "damaged" in str(error)
    return False


def test_no_changed_byte_goes_unnoticed(genuine):
    """A flipped bit in a weight is inaudible at first and a riddle later."""
    for path in (genuine / "model.index", genuine / "model.data-00000-of-00001"):
        good = path.read_bytes()
        for position in range(len(good)):
            if path.suffix == ".index" and len(good) - 48 <= position < len(good) - 8:
                continue  # the footer has no checksum; where it points to has
            bad = bytearray(good)
            bad[position] ^= 0x10
            path.write_bytes(bad)
            assert is_damaged(genuine), f"byte {position} of {path.name}"
        path.write_bytes(good)


@pytest.mark.parametrize("name", ["model.index", "model.data-00000-of-00001"])
def test_no_cut_file_is_read(genuine, name):
    path = genuine / name
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(StemsError, match="damaged"):
            read_all(genuine)


def test_random_footers_are_errors_at_worst(genuine):
    path = genuine / "model.index"
    good = path.read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(300):
        path.write_bytes(good[:-48] + rng.bytes(40) + good[-8:])
        with pytest.raises(StemsError, match="damaged"):
            read_all(genuine)


LIES = {
    "a size beyond the file": ({"size": 1 << 40}, "beyond all size|disagree"),
    "a size beyond any layer's": ({"size": 1 << 30}, "beyond all size"),
    "an offset beyond the file": ({"offset": 1 << 20}, "shorter than its index"),
    "a size that is not the shape's": ({"size": 4}, "disagree"),
    "another data file": ({"shard": 3}, "another data file"),
    "text": ({"dtype": 7}, "type 7"),
    "a wrong checksum": ({"crc": 1}, "checksum of v is wrong"),
}


@pytest.mark.parametrize(("changes", "message"), LIES.values(), ids=LIES)
def test_an_index_that_lies_is_refused(tmp_path, changes, message):
    """The index's own checksums are right here: whoever made it meant it."""
    values = np.arange(6, dtype=np.float32)
    write_bundle(tmp_path, {"v": values})
    index = table([(b"", b"\x08\x01"), (b"v", entry(values, 0, **changes))])
    (tmp_path / "model.index").write_bytes(index)
    with pytest.raises(StemsError, match=message):
        read_all(tmp_path)


def test_an_index_that_claims_terabytes_costs_nothing(tmp_path):
    message = entry(np.zeros((2, 3), np.float32), 0)
    # The shape [2, 3] becomes [2, 2**40].
    message = message.replace(b"\x12\x02\x08\x03", b"\x12\x07\x08\x80\x80\x80\x80\x80\x20")
    message = message.replace(b"\x12\x08\x12", b"\x12\x0d\x12", 1)
    write_bundle(tmp_path, {"v": np.zeros(6, np.float32)})
    (tmp_path / "model.index").write_bytes(table([(b"", b"\x08\x01"), (b"v", message)]))
    tracemalloc.start()
    with pytest.raises(StemsError, match="damaged"):
        read_all(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_compressed_and_foreign_indexes_are_named(tmp_path):
    entries = [(b"", b"\x08\x01")]
    write_bundle(tmp_path, {})
    (tmp_path / "model.index").write_bytes(table(entries, compression=1))
    with pytest.raises(StemsError, match="snappy"):
        Checkpoint(tmp_path)
    (tmp_path / "model.index").write_bytes(table([(b"", b"\x08\x02")]))
    with pytest.raises(StemsError, match="2 data files"):
        Checkpoint(tmp_path)
    (tmp_path / "model.index").write_bytes(table([(b"", b"\x08\x01\x10\x01")]))
    with pytest.raises(StemsError, match="big-endian"):
        Checkpoint(tmp_path)
    (tmp_path / "model.index").write_bytes(bytes(MAX_INDEX_BYTES + 1))
    with pytest.raises(StemsError, match="cannot be an index"):
        Checkpoint(tmp_path)


def test_an_index_that_multiplies_itself_is_refused(tmp_path):
    """A megabyte of entries that share ever longer names, or blocks, would fill the memory."""
    write_bundle(tmp_path, {})
    names = [b"n" * length for length in range(1, MAX_KEY_BYTES + 2)]
    (tmp_path / "model.index").write_bytes(table([(name, VALID) for name in names], per_block=9999))
    with pytest.raises(StemsError, match="name is too long"):
        Checkpoint(tmp_path)
    (tmp_path / "model.index").write_bytes(table([(b"", b"\x08\x01")], repeat=3))
    with pytest.raises(StemsError, match="blocks overlap"):
        Checkpoint(tmp_path)


def test_the_digest_tells_models_apart(tmp_path):
    for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        write_bundle(tmp_path / name, {"v": np.float32([value])})
    digests = [Checkpoint(tmp_path / name).digest for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
