"""Objects in S3, or in any server that speaks it.

Endpoint, region and credentials come from the usual AWS environment and files. What is written is
a finished local file or a whole value; a failed upload leaves nothing under the name.
"""

import functools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import boto3
from boto3.exceptions import Boto3Error, RetriesExceededError
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 (botocore's)
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)

from asha_ray.errors import NotFoundError, SpecError, StorageError, UnwritableError
from asha_ray.scratch import scratch_folder
from asha_ray.storage.base import Entry, basename, require_file

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

MISSING = ("404", "NoSuchKey", "NotFound", "NoSuchBucket")
THROTTLED = ("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded")
DENIED = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")

BROKEN_CONNECTIONS = (
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    RetriesExceededError,
)
"""No answer, or half of one."""

PATIENCE_S, FIRST_PATIENCE_S = 90.0, 8.0
"""The second is for a server that never answered yet: more likely its address is wrong."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0

_HAS_ANSWERED = threading.Event()

Answer = TypeVar("Answer")


class S3Storage:
    """`Storage` on `s3://bucket/key` uris.

    What fails for a reason that may pass (no connection, throttling, a server's own error) is tried
    again for a minute and a half, with pauses that grow; every call here may be made twice.
    """

    def read(self, uri: str) -> bytes:
        """The whole content."""
        bucket, key = _split(uri)

        def fetch() -> bytes:
            return bytes(_client().get_object(Bucket=bucket, Key=key)["Body"].read())

        return _tried("reading", uri, fetch)

    def write(self, uri: str, data: bytes) -> None:
        """Replace the whole content."""
        bucket, key = _split(uri)
        _tried("writing", uri, lambda: _client().put_object(Bucket=bucket, Key=key, Body=data))

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
            return _tried("reading", uri, lambda: _client().head_object(Bucket=bucket, Key=key))
        except NotFoundError:
            return None

    def list(self, uri: str) -> Iterator[Entry]:
        """Every object below a prefix, sorted by uri."""
        bucket, key = _split(uri, key_needed=False)
        prefix = f"{key.rstrip('/')}/" if key else ""
        token: dict[str, str] = {}
        while True:
            page = _tried(
                "listing",
                uri,
                lambda token=token: _client().list_objects_v2(  # type: ignore[misc]
                    Bucket=bucket, Prefix=prefix, **token
                ),
            )
            for item in page.get("Contents", []):
                if item["Key"].endswith("/"):
                    continue  # a console's mark of an empty folder
                yield Entry(f"s3://{bucket}/{item['Key']}", int(item["Size"]))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def upload(self, path: Path, uri: str) -> None:
        """Put a finished local file at `uri`, whole."""
        bucket, key = _split(uri)
        require_file(path)
        _tried("writing", uri, lambda: _client().upload_file(str(path), bucket, key))

    def download(self, uri: str, path: Path) -> None:
        """Copy to a local file."""
        bucket, key = _split(uri)
        _tried("reading", uri, lambda: _client().download_file(bucket, key, str(path)))

    def delete(self, uri: str) -> None:
        """Remove an object; fine where there is none."""
        bucket, key = _split(uri)
        _tried("deleting", uri, lambda: _client().delete_object(Bucket=bucket, Key=key))

    @contextmanager
    def local_copy(self, uri: str) -> Iterator[Path]:
        """A private temporary file."""
        with scratch_folder("copy") as folder:
            # The suffix stays: it tells people and decoders what the file is.
            path = folder / f"copy{Path(basename(uri)).suffix}"
            self.download(uri, path)
            yield path

    def check_writable(self, uri: str) -> None:
        """Raise at once where the bucket is missing or refuses us."""
        bucket, _ = _split(uri)
        try:
            # A person waits for this one, and nothing would be lost: no patience.
            _tried("writing", uri, lambda: _client().head_bucket(Bucket=bucket), patience_s=0)
        except NotFoundError as error:
            raise UnwritableError(
                f"writing {uri}: there is no such bucket; create it or check its name"
            ) from error
        except StorageError as error:
            raise UnwritableError(str(error)) from error


def _tried(
    doing: str, uri: str, action: Callable[[], Answer], patience_s: float | None = None
) -> Answer:
    """What an action answers, tried again while what stops it may pass.

    Raises:
        StorageError: when it may not, or patience is at an end.
    """
    began, pause_s = time.monotonic(), FIRST_PAUSE_S
    while True:
        try:
            with _explained(doing, uri):
                answer = action()
        except StorageError as error:
            waited_s = time.monotonic() - began
            if patience_s is None:
                patience_s = PATIENCE_S if _HAS_ANSWERED.is_set() else FIRST_PATIENCE_S
            if not _may_pass(error.__cause__) or waited_s + pause_s > patience_s:
                raise
        else:
            _HAS_ANSWERED.set()
            return answer
        # Random, so that a farm's workers do not all come back at once.
        time.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 (no secret)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _may_pass(cause: BaseException | None) -> bool:
    """Whether a call may succeed later: no answer, a server's own error, or too many requests."""
    answer = cause if isinstance(cause, ClientError) else getattr(cause, "__context__", None)
    if isinstance(answer, ClientError):
        status = int(answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return status >= 500 or status == 429 or _code(answer) in THROTTLED
    return isinstance(cause, BROKEN_CONNECTIONS) and not isinstance(cause, SSLError)


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
        # A few at once, for a hiccup; `_tried` has the patience.
        retries={"mode": "standard", "max_attempts": 3},
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
    code = _code(error)
    if code == "NoSuchBucket":
        return NotFoundError(f"{doing} {uri}: there is no such bucket; create it or check its name")
    if code in MISSING:
        return NotFoundError(f"{doing} {uri}: there is no such object; check the path")
    if code in DENIED:
        return StorageError(
            f"{doing} {uri}: access is denied ({code}); check credentials and bucket policy"
        )
    return StorageError(
        f"{doing} {uri}: S3 answered {code}: {error.response.get('Error', {}).get('Message', '')}; "
        "try again"
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
