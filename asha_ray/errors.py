"""Every error that asha-ray raises on purpose, as one tree.

AshaError                      base; the command line prints it without a traceback
├── InputError                 what the user gave cannot be used (exit code 2)
│   ├── SpecError              a setting or spec file is wrong
│   ├── AudioError             a sound file cannot be read
│   ├── ImageError             an image or a folder of images cannot be used
│   ├── ModelError             a model directory is missing, damaged or too new
│   ├── FeaturesError          a features file is missing, damaged or too new
│   ├── StemsError             a track cannot be separated: no model, a bad one, no environment
│   └── VideoError             a video file cannot be read
├── StorageError               a path could not be read or written
│   ├── NotFoundError          nothing exists there (exit code 2)
│   ├── ManifestError          a render's manifest is damaged or too new
│   └── UnwritableError        an output was named that cannot be written (exit code 2)
├── EncodeError                ffmpeg or the muxer failed
│   └── SegmentError           a segment is not what its record says; it is rendered again
├── ResourceError              the machine or cluster cannot hold what was asked for
├── FarmError                  work on the farm failed
│   ├── ClusterError           a Ray cluster cannot be reached, or refuses (exit code 1)
│   └── JobError               a job is not there, not as it should be, or cannot be repeated now
└── CheckError                 a finished video is not as it should be

A message says what was being done, to what, why it failed, and what to do about it.
"""


class AshaError(Exception):
    """Base of all expected errors.

    Attributes:
        exit_code: what the command line exits with.
    """

    exit_code = 1


class InputError(AshaError):
    """What the user gave cannot be used."""

    exit_code = 2


class SpecError(InputError):
    """A setting or a spec file is wrong; the message names the field and what it accepts."""


class AudioError(InputError):
    """A sound file cannot be read."""


class ImageError(InputError):
    """An image, or a whole folder of them, cannot be used."""


class ModelError(InputError):
    """A model directory is missing, damaged or written by a newer version."""


class FeaturesError(InputError):
    """A features file is missing, damaged or written by a newer version."""


class StemsError(InputError):
    """A track cannot be separated: its model is missing or damaged, or its environment is."""


class VideoError(InputError):
    """A video file cannot be read."""


class StorageError(AshaError):
    """A local path or S3 object could not be read or written."""


class NotFoundError(StorageError):
    """Nothing exists at a path that should be read."""

    exit_code = 2


class UnwritableError(StorageError):
    """An output was named that cannot be written; known before any work is done."""

    exit_code = 2


class ManifestError(StorageError):
    """A render's manifest is damaged, or written by a newer version."""


class EncodeError(AshaError):
    """ffmpeg or the muxer failed; the message ends with its own last words."""


class SegmentError(EncodeError):
    """A segment is not what it should be; rendering it again is the remedy.

    Attributes:
        chunk_ids: whose segments these are.
    """

    def __init__(self, message: str, *chunk_ids: str) -> None:
        super().__init__(message)
        self.chunk_ids = chunk_ids


class ResourceError(AshaError):
    """The machine or cluster cannot hold what was asked for."""

    exit_code = 2


class FarmError(AshaError):
    """Work on the farm failed; what was finished is kept."""


class ClusterError(FarmError):
    """A Ray cluster cannot be reached, refuses us, or is of a version that does not fit."""


class JobError(FarmError):
    """A job cannot be found, read, stopped or repeated; the message says which, and why."""


class CheckError(AshaError):
    """A finished video is not as it should be."""
