"""Objects in S3, or in any server that speaks it.

Endpoint, region and credentials come from the usual AWS environment and files. What is written is
a finished local file or a whole value; a failed upload leaves nothing under the name.
"""

import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
)

from asha_ray.errors import NotFoundError, SpecError, StorageError, UnwritableError
from asha_ray.storage.base import Entry, basename, require_file

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

MISSING = ("404", "NoSuchKey", "NotFound", "NoSuchBucket")
DENIED = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")


class S3Storage:
    """`Storage` on `s3://bucket/key` uris."""

    def read(self, uri: str) -> bytes:
        """The whole content."""
        bucket, key = _split(uri)
        with _explained("reading", uri):
            return bytes(_client().get_object(Bucket=bucket, Key=key)["Body"].read())

    def write(self, uri: str, data: bytes) -> None:
        """Replace the whole content."""
        bucket, key = _split(uri)
        with _explained("writing", uri):
            _client().put_object(Bucket=bucket, Key=key, Body=data)

    def size(self, uri: str) -> int | None:
        """Bytes of an object, or None where there is none."""
        head = self._head(uri)
        return None if head is None else int(head["ContentLength"])

    def version(self, uri: str) -> str | None:
        """The object's entity tag and time, or None where there is none."""
        head = self._head(uri)
        return None if head is None else f"{head['ETag']} {head['LastModified'].isoformat()}"

    def _head(self, uri: str) -> "HeadObjectOutputTypeDef | None":
        bucket, key = _split(uri)
        try:
            with _explained("reading", uri):
                return _client().head_object(Bucket=bucket, Key=key)
        except NotFoundError:
            return None

    def list(self, uri: str) -> Iterator[Entry]:
        """Every object below a prefix, sorted by uri."""
        bucket, key = _split(uri, key_needed=False)
        prefix = f"{key.rstrip('/')}/" if key else ""
        with _explained("listing", uri):
            pages = (
                _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            )
            for page in pages:
                for item in page.get("Contents", []):
                    if item["Key"].endswith("/"):
                        continue  # a console's mark of an empty folder
                    yield Entry(f"s3://{bucket}/{item['Key']}", int(item["Size"]))

    def upload(self, path: Path, uri: str) -> None:
        """Put a finished local file at `uri`, whole."""
        bucket, key = _split(uri)
        require_file(path)
        with _explained("writing", uri):
            _client().upload_file(str(path), bucket, key)

    def download(self, uri: str, path: Path) -> None:
        """Copy to a local file."""
        bucket, key = _split(uri)
        with _explained("reading", uri):
            _client().download_file(bucket, key, str(path))

    def delete(self, uri: str) -> None:
        """Remove an object; fine where there is none."""
        bucket, key = _split(uri)
        with _explained("deleting", uri):
            _client().delete_object(Bucket=bucket, Key=key)

    @contextmanager
    def local_copy(self, uri: str) -> Iterator[Path]:
        """A private temporary file."""
        with tempfile.TemporaryDirectory(prefix="asha-") as folder:
            # The suffix stays: it tells people and decoders what the file is.
            path = Path(folder) / f"copy{Path(basename(uri)).suffix}"
            self.download(uri, path)
            yield path

    def check_writable(self, uri: str) -> None:
        """Raise at once where the bucket is missing or refuses us."""
        bucket, _ = _split(uri)
        try:
            with _explained("writing", uri):
                _client().head_bucket(Bucket=bucket)
        except NotFoundError as error:
            raise UnwritableError(
                f"writing {uri}: there is no such bucket; create it or check its name"
            ) from error
        except StorageError as error:
            raise UnwritableError(str(error)) from error


@functools.cache
def _client() -> "S3Client":
    client = boto3.client("s3", config=_config())
    if "amazonaws.com" in client.meta.endpoint_url:
        return client
    # Other servers know buckets by path, and not all of them know today's checksum headers.
    return boto3.client(
        "s3",
        config=_config().merge(
            Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            )
        ),
    )


def _config() -> Config:
    return Config(
        retries={"mode": "standard", "max_attempts": 6},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=16,
    )


def _split(uri: str, *, key_needed: bool = True) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or (key_needed and not key):
        raise SpecError(f"path {uri}: write it as s3://bucket/key")
    return bucket, key


@contextmanager
def _explained(doing: str, uri: str) -> Iterator[None]:
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise StorageError(
            f"{doing} {uri}: there are no AWS credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY, or use an instance role"
        ) from error
    except EndpointConnectionError as error:
        raise StorageError(
            f"{doing} {uri}: the S3 endpoint cannot be reached; check AWS_ENDPOINT_URL and the "
            "network"
        ) from error
    except ClientError as error:
        raise _from_answer(doing, uri, error) from error
    except (BotoCoreError, Boto3Error) as error:
        if isinstance(error.__context__, ClientError):  # how boto3 hides what S3 answered
            raise _from_answer(doing, uri, error.__context__) from error
        raise StorageError(f"{doing} {uri}: {error}; check the network and try again") from error


def _from_answer(doing: str, uri: str, error: ClientError) -> StorageError:
    answer = error.response.get("Error", {})
    code = str(answer.get("Code", ""))
    if code == "NoSuchBucket":
        return NotFoundError(f"{doing} {uri}: there is no such bucket; create it or check its name")
    if code in MISSING:
        return NotFoundError(f"{doing} {uri}: there is no such object; check the path")
    if code in DENIED:
        return StorageError(
            f"{doing} {uri}: access is denied ({code}); check credentials and bucket policy"
        )
    return StorageError(
        f"{doing} {uri}: S3 answered {code}: {answer.get('Message', '')}; try again"
    )
