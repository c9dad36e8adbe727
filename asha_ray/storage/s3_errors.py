"""What S3 and its libraries say when something fails: what it means, whether it may pass."""

from boto3.exceptions import Boto3Error, RetriesExceededError
from botocore.exceptions import (
    ClientError,
    ConnectionError,  # noqa: A004 (botocore's)
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
    SSOError,
    TokenRetrievalError,
)

from asha_ray.errors import NotFoundError, StorageError
from asha_ray.storage.base import redacted
from asha_ray.storage.local import DISK_REMEDY, REMEDIES

MISSING = ("404", "NoSuchKey", "NotFound", "NoSuchBucket")
DENIED = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch")
EXPIRED = (
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "TokenRefreshRequired",
    "InvalidToken",
)
UNKNOWN_CALL = ("NotImplemented", "MethodNotAllowed", "501", "405")
PASSING = (
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "RequestTimeout",  # half a request came, and the rest too late
    "IncompleteBody",
    "BadDigest",
    "NoSuchUpload",  # its end was done and the answer lost, or it was cleared away: all anew
)
"""What may not be answered again though the server's status says that the request is wrong."""

BROKEN_CONNECTIONS = (
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    RetriesExceededError,
    # as the system says it, where no library has put it in words of its own
    ConnectionAbortedError,
    ConnectionResetError,
    BrokenPipeError,
    TimeoutError,
)
"""No answer, or half of one."""


def may_pass(cause: BaseException | None) -> bool:
    """Whether a call may succeed later: no answer, a server's own error, or too many requests."""
    answer = refusal_of(cause)
    if answer is not None:
        status = int(answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code_of(answer) in UNKNOWN_CALL:
            return False
        return status >= 500 or status == 429 or code_of(answer) in PASSING
    if isinstance(cause, HTTPClientError) and isinstance(cause.kwargs.get("error"), ValueError):
        return False  # an address or a header that no request can have
    return isinstance(cause, BROKEN_CONNECTIONS) and not isinstance(cause, SSLError)


def explanation(subject: str, error: Exception, secrets: tuple[str, ...]) -> StorageError:
    """What to tell people.

    Args:
        subject: what was being done, and to what.
        error: botocore's, boto3's or the system's.
        secrets: what the text may not hold.
    """
    refusal = refusal_of(error)
    if refusal is not None:
        return _from_refusal(subject, refusal, secrets)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return StorageError(
            f"{subject}: there are no AWS credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY, or use an instance role"
        )
    if isinstance(error, SSOError | TokenRetrievalError):
        return _has_expired(subject, "the sign-on's")
    if isinstance(error, EndpointConnectionError):
        return StorageError(
            f"{subject}: the S3 endpoint cannot be reached; check AWS_ENDPOINT_URL and the network"
        )
    if isinstance(error, OSError) and not isinstance(error, BROKEN_CONNECTIONS):
        remedy = REMEDIES.get(error.errno or 0, DISK_REMEDY)
        return StorageError(f"{subject}: on the local disk: {error.strerror or error}; {remedy}")
    if isinstance(error, RetriesExceededError):
        error = getattr(error, "last_exception", None) or error  # which says more
    text = redacted(str(error), *secrets)
    return StorageError(f"{subject}: {text}; check the network and try again")


def _from_refusal(subject: str, error: ClientError, secrets: tuple[str, ...]) -> StorageError:
    code = code_of(error)
    if code == "NoSuchBucket":
        return NotFoundError(f"{subject}: there is no such bucket; create it or check its name")
    if code in MISSING:
        return NotFoundError(f"{subject}: there is no such object; check the path")
    if code in EXPIRED:
        return _has_expired(subject, code)
    if code in DENIED:
        return StorageError(
            f"{subject}: access is denied ({code}); check credentials and bucket policy"
        )
    message = redacted(str(error.response.get("Error", {}).get("Message", "")), *secrets)
    return StorageError(f"{subject}: S3 answered {code}: {message}; try again")


def _has_expired(subject: str, code: str) -> StorageError:
    return StorageError(
        f"{subject}: the AWS credentials have expired ({code}); renew them and run the same "
        "command again: what is finished is kept"
    )


def hide(error: BaseException, secrets: tuple[str, ...]) -> None:
    """Take secrets out of an error and of what caused it, which tracebacks show."""
    seen: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and one not in seen:
            seen.append(one)
            left += [one.__cause__, one.__context__]
            one.args = tuple(
                redacted(part, *secrets) if isinstance(part, str) else part for part in one.args
            )


def refusal_of(error: BaseException | None) -> ClientError | None:
    """What S3 answered, which boto3 hides behind an error of its own."""
    if isinstance(error, Boto3Error):
        error = error.__context__
    return error if isinstance(error, ClientError) else None


def refusal_code(error: StorageError) -> str:
    """The code of S3's refusal that an error of ours explains, or nothing."""
    refusal = refusal_of(error.__cause__)
    return "" if refusal is None else code_of(refusal)


def code_of(error: ClientError) -> str:
    """S3's word for what is wrong; of an answer to HEAD, which has no words, its status."""
    return str(error.response.get("Error", {}).get("Code", ""))
