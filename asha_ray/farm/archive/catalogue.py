"""The catalogue of an archive: one Parquet file, a row for each show, for whoever asks about many.

What is not known is null. Rows are sorted by `show`, `date` and `path`, null last; shows that were
taken down have none. `show` is a word of SQL's own in some databases: write it in quotes there.

| column | type | is |
|---|---|---|
| `show_id` | string | the show, whatever its name is |
| `path` | string | of its sound file, below the source |
| `state` | string | `done`, `failed` (tried again by itself) or `parked` (waits for a person) |
| `reason` | string | why it failed, and what to do |
| `show`, `title`, `artist`, `album` | string | the series, and what the recording says of itself |
| `date` | string | when it was on air: `2023-05-01`, `2023-05` or `2023` |
| `duration_s` | double | seconds of sound |
| `tempo` | double | beats per minute |
| `loudness_lufs` | double | integrated loudness, EBU R 128 |
| `true_peak_dbfs` | double | true peak of the sound |
| `sections` | list of double | seconds at which something new begins |
| `chapters` | list of `{start_s: double, title: string}` | its parts that have names |
| `render_id` | string | its render in the work root |
| `output` | string | the video's path, below the archive's output |
| `files` | list of string | all that was written for it, likewise |
| `frames` | int64 | in the video |
| `fps` | string | exact: `60` or `30000/1001` |
| `width`, `height` | int32 | of the video, in pixels |
| `audio_sha256`, `model_sha256`, `video_sha256` | string | of what it was made of, and of it |
| `decoded_frames` | int64 | that the check could decode |
| `black_s`, `frozen_s`, `silent_s` | double | seconds in which nothing is to be seen, or heard |
| `problems` | list of string | what the check says a person should look at |
| `attempts` | int32 | how often it was tried |
| `render_s` | double | seconds of workers that rendering took, in all |
| `wall_s` | double | seconds from its beginning to its end |
| `time` | timestamp, ms, UTC | when its record was written |
"""

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from asha_ray.farm.archive.quality import Found, found_in
from asha_ray.farm.places import put
from asha_ray.storage import join
from asha_ray.storage.journal import moment
from asha_ray.storage.ledger import ShowRecord

CATALOGUE = "catalogue.parquet"
"""Its name in the archive's output."""
ROWS_IN_GROUP = 10_000
"""Rows that are made at once."""

_TEXTS, _CHAPTER = pa.list_(pa.string()), pa.struct({"start_s": pa.float64(), "title": pa.string()})

_COLUMNS: dict[str, tuple[pa.DataType, Callable[[ShowRecord, Found], Any]]] = {
    "show_id": (pa.string(), lambda show, _: _text(show.show_id)),
    "path": (pa.string(), lambda show, _: _text(show.key)),
    "state": (pa.string(), lambda show, _: show.state),
    "reason": (pa.string(), lambda show, _: _text(show.reason)),
    "show": (pa.string(), lambda show, _: _text(show.show)),
    "title": (pa.string(), lambda show, _: _text(show.title)),
    "artist": (pa.string(), lambda show, _: _text(show.artist)),
    "album": (pa.string(), lambda show, _: _text(show.album)),
    "date": (pa.string(), lambda show, _: _text(show.date)),
    "duration_s": (pa.float64(), lambda show, _: show.duration_s or None),
    "tempo": (pa.float64(), lambda show, _: show.tempo or None),
    "loudness_lufs": (pa.float64(), lambda show, _: show.loudness_lufs),
    "true_peak_dbfs": (pa.float64(), lambda _, found: found.true_peak_dbfs),
    "sections": (pa.list_(pa.float64()), lambda show, _: show.sections),
    "chapters": (pa.list_(_CHAPTER), lambda show, _: _chapters(show)),
    "render_id": (pa.string(), lambda show, _: _text(show.render_id)),
    "output": (pa.string(), lambda show, _: _text(show.output)),
    "files": (_TEXTS, lambda show, _: _texts(show.files)),
    "frames": (pa.int64(), lambda show, _: show.frames or None),
    "fps": (pa.string(), lambda show, _: _text(show.fps)),
    "width": (pa.int32(), lambda show, _: show.size[0] or None),
    "height": (pa.int32(), lambda show, _: show.size[1] or None),
    "audio_sha256": (pa.string(), lambda show, _: _text(show.digests.get("audio", ""))),
    "model_sha256": (pa.string(), lambda show, _: _text(show.digests.get("model", ""))),
    "video_sha256": (pa.string(), lambda show, _: _text(show.digests.get("video", ""))),
    "decoded_frames": (pa.int64(), lambda _, found: found.decoded_frames),
    "black_s": (pa.float64(), lambda _, found: found.black_s),
    "frozen_s": (pa.float64(), lambda _, found: found.frozen_s),
    "silent_s": (pa.float64(), lambda _, found: found.silent_s),
    "problems": (_TEXTS, lambda _, found: _texts(found.problems)),
    "attempts": (pa.int32(), lambda show, _: show.attempts),
    "render_s": (pa.float64(), lambda show, _: show.render_s or None),
    "wall_s": (pa.float64(), lambda show, _: show.wall_s or None),
    "time": (pa.timestamp("ms", "UTC"), lambda show, _: moment(show.time)),
}
"""Column -> its type, and what it holds of a show and of what the check of its video found."""

SCHEMA = pa.schema({name: kind for name, (kind, _) in _COLUMNS.items()})


def write_catalogue(records: Iterable[ShowRecord], path: Path) -> None:
    """Write the catalogue of all shows but those that were taken down.

    Args:
        records: of shows, in any order; each is asked for once.
        path: of a local file.

    Raises:
        OSError: if it cannot be written.
    """
    shows = (record for record in records if record.state != "forgotten")
    batches = []
    while some := list(islice(shows, ROWS_IN_GROUP)):
        batches.append(_batch(some))
    # All columns take less memory than all records, which a ledger decodes one by one.
    table = pa.Table.from_batches(batches, SCHEMA)
    table = table.sort_by([(name, "ascending") for name in ("show", "date", "path")])
    pq.write_table(table, path, compression="zstd", row_group_size=ROWS_IN_GROUP)


def publish_catalogue(records: Iterable[ShowRecord], output: str) -> str:
    """Put the catalogue into an archive's output, whole; returns where it is.

    Raises:
        StorageError: if it cannot be written.
    """
    uri = join(output, CATALOGUE)
    put(uri, lambda path: write_catalogue(records, path))
    return uri


def _batch(shows: list[ShowRecord]) -> pa.RecordBatch:
    found = [found_in(show.quality) for show in shows]
    columns = [
        pa.array([cell(*pair) for pair in zip(shows, found, strict=True)], kind)
        for kind, cell in _COLUMNS.values()
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def _text(text: str) -> str | None:
    # A name on a disk may be no Unicode; a reader of the catalogue must get over it.
    return text.encode(errors="replace").decode() or None


def _texts(texts: Iterable[str]) -> list[str]:
    return [_text(text) or "" for text in texts]


def _chapters(show: ShowRecord) -> list[dict[str, Any]]:
    return [{"start_s": start_s, "title": _text(title) or ""} for start_s, title in show.chapters]
