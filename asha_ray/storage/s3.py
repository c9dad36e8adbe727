"""Objects in S3, or in any server that speaks it.

Endpoint, region and credentials come from the usual AWS environment and files. What is written is
a finished local file or a whole value; a failed upload leaves nothing under the name.
"""

import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session
from botocore.utils import parse_timestamp

from asha_ray.errors import NotFoundError, SpecError, StorageError, UnwritableError
from asha_ray.scratch import scratch_folder
from asha_ray.storage.base import (
    CONTROL,
    Entry,
    Unfinished,
    basename,
    is_below,
    redacted,
    require_file,
    require_plain,
)
from asha_ray.storage.patience import full_disk_patience_s, patiently
from asha_ray.storage.s3_errors import (
    EXPIRED,
    UNKNOWN_CALL,
    code_of,
    explanation,
    hide,
    may_pass,
    refusal_code,
)

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

PATIENCE_S, FIRST_PATIENCE_S = 90.0, 8.0
"""The second is for a server that never answered yet: more likely its address is wrong."""

MAX_SUFFIX = 32
"""A key may be a thousand bytes long, a name on a disk a quarter of that."""

UNFINISHED_AGE = timedelta(days=1)
"""Nobody works on an upload any more that was begun so long ago."""

_HAS_ANSWERED = threading.Event()
_CHANGING = threading.Lock()
"""Held while the client that all threads share is made or replaced."""

Answer = TypeVar("Answer")


class S3Storage:
    """`Storage` on `s3://bucket/key` uris.

    What fails for a reason that may pass (no connection, throttling, a server's own error) is tried
    again for a minute and a half, with pauses that grow; every call here may be made twice.
    """

    def read(self, uri: str) -> bytes:
        """The whole content."""
        bucket, key = _split(uri)

        def fetch(s3: "S3Client") -> bytes:
            return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())

        return _tried("reading", uri, fetch)

    def write(self, uri: str, data: bytes) -> None:
        """Replace the whole content."""
        bucket, key = _split(uri)
        _tried("writing", uri, lambda s3: s3.put_object(Bucket=bucket, Key=key, Body=data))

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
            return _tried("reading", uri, lambda s3: s3.head_object(Bucket=bucket, Key=key))
        except NotFoundError:
            return None

    def list(
        self,
        uri: str,
        *,
        after: str = "",
        refuse: Callable[[str], None] | None = None,
    ) -> Iterator[Entry]:
        """Every object below a prefix, sorted by uri."""
        bucket, _ = _split(uri, key_needed=False)
        for page in _pages(uri, after):
            for item in page.get("Contents", []):
                name = f"s3://{bucket}/{item['Key']}"
                if is_below(item["Key"]):
                    changed_s, version = item["LastModified"].timestamp(), item["ETag"].strip('"')
                    yield Entry(name, int(item["Size"]), changed_s, version)
                # What ends so is a console's mark of an empty folder.
                elif refuse is not None and not item["Key"].endswith("/"):
                    refuse(name)

    def folders(self, uri: str) -> Iterator[str]:
        """The parts of keys that follow a prefix and have a slash after them, sorted."""
        for page in _pages(uri, Delimiter="/"):
            for item in page.get("CommonPrefixes", []):
                name = item["Prefix"].rstrip("/").rpartition("/")[2]
                if is_below(name):
                    yield name

    def upload(self, path: Path, uri: str) -> None:
        """Put a finished local file at `uri`, whole."""
        bucket, key = _split(uri)
        require_file(path)
        _tried("writing", uri, lambda s3: s3.upload_file(str(path), bucket, key))

    def download(self, uri: str, path: Path) -> None:
        """Copy to a local file."""
        bucket, key = _split(uri)
        _tried("reading", uri, lambda s3: s3.download_file(bucket, key, str(path)))

    def delete(self, uri: str) -> None:
        """Remove an object; fine where there is none."""
        bucket, key = _split(uri)
        _tried("deleting", uri, lambda s3: s3.delete_object(Bucket=bucket, Key=key))

    @contextmanager
    def local_copy(self, uri: str) -> Iterator[Path]:
        """A private temporary file."""
        with scratch_folder("copy") as folder:
            # The suffix stays: it tells people and decoders what the file is.
            suffix = Path(basename(uri)).suffix
            path = folder / f"copy{suffix if len(suffix) < MAX_SUFFIX else ''}"
            self.download(uri, path)
            yield path

    def check_writable(self, uri: str) -> None:
        """Raise at once where the bucket is missing or refuses us."""
        bucket, _ = _split(uri)
        try:
            # A person waits for this one, and nothing would be lost: no patience.
            _tried("writing", uri, lambda s3: s3.head_bucket(Bucket=bucket), patience_s=0)
        except NotFoundError as error:
            raise UnwritableError(
                f"writing {uri}: there is no such bucket; create it or check its name"
            ) from error
        except StorageError as error:
            raise UnwritableError(str(error)) from error

    def unfinished(self, uri: str) -> Iterator[Unfinished]:
        """Uploads in parts below a prefix that were begun over a day ago and never completed.

        Nothing where a server does not know them.
        """
        bucket, key = _split(uri, key_needed=False)
        prefix = f"{key.rstrip('/')}/" if key else ""
        before = datetime.now(UTC) - UNFINISHED_AGE
        for upload in self._uploads(uri, bucket, prefix):
            if upload["Initiated"] < before and is_below(upload["Key"]):
                name = f"s3://{bucket}/{upload['Key']}"
                num_bytes = self._num_bytes(name, upload["UploadId"])
                if num_bytes is not None:
                    yield Unfinished(name, num_bytes, upload["UploadId"])

    def _uploads(self, uri: str, bucket: str, prefix: str) -> Iterator[Any]:
        after: dict[str, str] = {}
        while True:
            try:
                page = _tried(
                    "listing",
                    uri,
                    lambda s3, after=after: s3.list_multipart_uploads(  # type: ignore[misc]
                        Bucket=bucket, Prefix=prefix, **after
                    ),
                )
            except StorageError as error:
                if refusal_code(error) in UNKNOWN_CALL:
                    return
                raise
            yield from page.get("Uploads", [])
            following = {
                "KeyMarker": page.get("NextKeyMarker", ""),
                "UploadIdMarker": page.get("NextUploadIdMarker", ""),
            }
            # A server that does not know the marks would give the same page for ever.
            if not page.get("IsTruncated") or following == after:
                return
            after = following

    def _num_bytes(self, uri: str, upload_id: str) -> int | None:
        """What has come of an upload, or None where it has been completed or cleared away."""
        bucket, key = _split(uri)

        def measure(s3: "S3Client") -> int | None:
            pages = s3.get_paginator("list_parts").paginate(
                Bucket=bucket, Key=key, UploadId=upload_id
            )
            try:
                return sum(int(part["Size"]) for page in pages for part in page.get("Parts", []))
            except s3.exceptions.NoSuchUpload:
                return None

        return _tried("reading", uri, measure)

    def discard(self, left: Unfinished) -> None:
        """Abort an upload; fine where it is gone."""
        bucket, key = _split(left.uri)

        def abort(s3: "S3Client") -> None:
            with suppress(s3.exceptions.NoSuchUpload):
                s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=left.upload_id)

        _tried("deleting", left.uri, abort)


def _pages(uri: str, after: str = "", **options: Any) -> Iterator[Any]:
    """S3's answers on what lies below a prefix, a thousand keys at a time."""
    bucket, key = _split(uri, key_needed=False)
    prefix = f"{key.rstrip('/')}/" if key else ""
    if after:
        options["StartAfter"] = f"{prefix}{after}"
    token: dict[str, str] = {}
    while True:
        page = _tried(
            "listing",
            uri,
            lambda s3, token=token: s3.list_objects_v2(  # type: ignore[misc]
                Bucket=bucket, Prefix=prefix, **options, **token
            ),
        )
        yield page
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def _tried(
    doing: str, uri: str, action: "Callable[[S3Client], Answer]", patience_s: float | None = None
) -> Answer:
    """What an action answers, tried again while what stops it may pass.

    Raises:
        StorageError: when it may not, or patience is at an end.
    """

    def longest_s(error: StorageError) -> float:
        if patience_s is not None:
            return patience_s
        if may_pass(error.__cause__):
            return PATIENCE_S if _HAS_ANSWERED.is_set() else FIRST_PATIENCE_S
        return full_disk_patience_s(error)

    answer = patiently(lambda: _answer(doing, uri, action), longest_s)
    _HAS_ANSWERED.set()
    return answer


def _answer(doing: str, uri: str, action: "Callable[[S3Client], Answer]") -> Answer:
    """What an action answers; where credentials have expired and others are there, with those."""
    client = _shared_client(doing, uri)
    try:
        return _attempt(doing, uri, client, action)
    except StorageError as error:
        # Once: whose clock is wrong would hear for ever that its newest credentials have expired.
        if refusal_code(error) not in EXPIRED or not _is_renewed(client):
            raise
    return _attempt(doing, uri, _shared_client(doing, uri), action)


def _attempt(
    doing: str, uri: str, client: "S3Client", action: "Callable[[S3Client], Answer]"
) -> Answer:
    with _explained(doing, uri, client):
        try:
            return action(client)
        except ClientError as error:
            if code_of(error) == "400":
                # An answer to HEAD has no text; one to GET says what is wrong.
                client.list_objects_v2(Bucket=_split(uri, key_needed=False)[0], MaxKeys=1)
            raise


class _Credentials(NamedTuple):
    access_key: str
    secret_key: str
    token: str


_CREDENTIALS: "weakref.WeakKeyDictionary[S3Client, Any]" = weakref.WeakKeyDictionary()
"""Client -> botocore's credentials that it signs with."""


@functools.cache
def _client() -> "S3Client":
    """The client that all threads share."""
    session = _new_session()
    client = session.client("s3", config=_config())
    if "amazonaws.com" not in client.meta.endpoint_url:
        # Other servers know buckets by path, and not all of them know today's checksum headers.
        config = Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        client = session.client("s3", config=_config().merge(config))
    _CREDENTIALS[client] = session.get_credentials()
    return client


def _new_session() -> boto3.Session:
    """One that has read environment and files just now."""
    session = get_session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time_of)
    return boto3.Session(botocore_session=session)


def _time_of(text: Any) -> datetime:
    """A time in an answer; botocore's own way takes four fifths of the time that a list takes."""
    if isinstance(text, str) and text.endswith("Z"):
        with suppress(ValueError):
            return datetime.fromisoformat(text)
    return parse_timestamp(text)


def _shared_client(doing: str, uri: str) -> "S3Client":
    with _explained(doing, uri), _CHANGING:
        try:
            return _client()
        except BotoCoreError:
            raise
        except ValueError:
            # Its text is not repeated, not even as the cause: it may be an address with a password.
            raise StorageError(
                f"{doing} {redacted(uri)}: the S3 endpoint is no http:// or https:// address; "
                "check AWS_ENDPOINT_URL"
            ) from None


def _is_renewed(refused: "S3Client") -> bool:
    """Whether the shared client has other credentials, perhaps since now, than one that expired."""
    with _CHANGING, suppress(BotoCoreError, ClientError, ValueError):
        if _client() is not refused:
            return True  # another thread has found them
        found = _read(_new_session().get_credentials())
        if found is not None and found != _read(_CREDENTIALS.get(refused)):
            _client.cache_clear()
            return True
    return False


def _read(credentials: Any) -> _Credentials | None:
    if credentials is None:
        return None
    now = credentials.get_frozen_credentials()
    return _Credentials(now.access_key or "", now.secret_key or "", now.token or "")


def _config() -> Config:
    return Config(
        # A few at once, for a hiccup; `_tried` has the patience.
        retries={"mode": "standard", "max_attempts": 3},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=16,
    )


def _split(uri: str, *, key_needed: bool = True) -> tuple[str, str]:
    """Bucket and key.

    Raises:
        SpecError: if either is missing, or the key could be taken for another one: HTTP libraries
            resolve `..` as they do in any address, which leads to another key or another bucket.
    """
    require_plain(uri)
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or (key_needed and not key):
        raise SpecError(f"path {uri}: write it as s3://bucket/key")
    if not (is_below(bucket) and (not key or is_below(key.removesuffix("/")))):
        shown = repr(uri) if CONTROL.search(uri) else uri
        raise SpecError(
            f"path {shown}: write it as s3://bucket/key, without '..', empty parts or control "
            "characters"
        )
    return bucket, key


@contextmanager
def _explained(doing: str, uri: str, client: "S3Client | None" = None) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, Boto3Error, ClientError, OSError) as error:
        secrets = _secrets(client)
        hide(error, secrets)
        raise explanation(f"{doing} {uri}", error, secrets) from error


def _secrets(client: "S3Client | None") -> tuple[str, ...]:
    """What a message may not hold, though libraries and servers like to repeat it."""
    credentials = None if client is None else _CREDENTIALS.get(client)
    if credentials is None:
        return ()
    # Not by botocore's own properties: they may ask a server for new ones.
    known = {name.lstrip("_"): value for name, value in vars(credentials).items()}
    return tuple(known[name] for name in _Credentials._fields if known.get(name))
