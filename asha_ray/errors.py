"""Every error that asha-ray raises on purpose, as one tree.

AshaError                      base; the command line prints it without a traceback
├── InputError                 what the user gave cannot be used (exit code 2)
│   ├── SpecError              a setting or spec file is wrong
│   ├── AudioError             a sound file cannot be read
│   ├── ImageError             an image or a folder of images cannot be used
│   ├── ModelError             a model directory is missing, damaged or too new
│   ├── FeaturesError          a features file is missing, damaged or too new
│   └── VideoError             a video file cannot be read
├── StorageError               a path could not be read or written
│   ├── NotFoundError          nothing exists there (exit code 2)
│   └── UnwritableError        an output was named that cannot be written (exit code 2)
├── EncodeError                ffmpeg or the muxer failed
├── ResourceError              the machine or cluster cannot hold what was asked for
├── FarmError                  work on the farm failed
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


class EncodeError(AshaError):
    """ffmpeg or the muxer failed; the message ends with its own last words."""


class ResourceError(AshaError):
    """The machine or cluster cannot hold what was asked for."""

    exit_code = 2


class FarmError(AshaError):
    """Work on the farm failed; what was finished is kept."""


class CheckError(AshaError):
    """A finished video is not as it should be."""
