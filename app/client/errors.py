"""What can go wrong on the caller's side of the API."""

import json
from typing import Any

import httpx
from pydantic import ValidationError

from app.errors import Fault, Problem

STORED_REFUSAL_STATUS = 422
UNEXPECTED_ANSWER = "unexpected_answer"
"""The code of an answer that is none of Lathe's."""


class LatheClientError(Exception):
    """Every error of this client."""


class LatheApiError(LatheClientError):
    """The service refused: its problem document, as attributes.

    `errors` names each refused field where the code is `validation_failed`. `attempt` is the one that was refused, from
    1 on: an earlier one may have been carried out, and its answer lost.
    """

    def __init__(
        self,
        problem: Problem,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(_message(problem))
        self.code = problem.code
        self.title = problem.title
        self.detail = problem.detail
        self.remedy = problem.remedy
        self.status = problem.status
        self.errors = problem.errors or []
        self.retry_after_seconds = retry_after_seconds
        self.attempt = 1

    @classmethod
    def from_response(cls, response: httpx.Response) -> "LatheApiError":
        """The error in a response that was read; an answer that is no problem document is named for what it is."""
        return cls(_problem(response), _retry_after_seconds(response))


class UploadRejected(LatheApiError):
    """Inspection found that the model or the dataset cannot be used."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(Problem(status=STORED_REFUSAL_STATUS, **fault.model_dump()))


class ServiceUnreachable(LatheClientError):
    """No whole answer came, after every retry."""

    def __init__(self, url: str, cause: httpx.RequestError) -> None:
        super().__init__(
            f"{url} does not answer: {str(cause) or type(cause).__name__}. "
            "Check the URL (LATHE_URL), and that the service runs there."
        )
        self.url = url


class NotConfigured(LatheClientError):
    """The URL or the key is missing or cannot be used."""


class WaitTimeout(LatheClientError, TimeoutError):
    """What was waited for did not happen in time; it goes on in the service."""


class DownloadCorrupt(LatheClientError):
    """The bytes that came are not those that the service announced; nothing was left at the destination."""


class NothingDelivered(LatheClientError, ValueError):
    """The job has no optimized model to download: it is not over, or it ended without one."""


class ExportFailed(LatheClientError):
    """A PyTorch module or arrays could not be turned into a file on this machine."""


def _message(problem: Problem) -> str:
    parts = [f"{problem.title}: {problem.detail}"]
    fields = [f"{'.'.join(map(str, _location(error)))}: {error.get('message')}" for error in problem.errors or []]
    parts += [field for field in fields if field not in problem.detail]
    if problem.remedy:
        parts.append(problem.remedy)
    return " ".join(parts) + f" ({problem.code})"


def _location(error: dict[str, Any]) -> list[Any]:
    location = error.get("location", [])
    return location if isinstance(location, list) else [location]


def _problem(response: httpx.Response) -> Problem:
    title = "Something other than Lathe answered"
    remedy = "Check the URL (LATHE_URL), any proxy on the way, and that client and service are of one version."
    try:
        return Problem.model_validate(response.json())
    except (json.JSONDecodeError, UnicodeDecodeError):
        pass
    except ValidationError:
        if response.is_success:
            title = "The service answered what this client cannot read"
            remedy = "It is newer than this client: let both be of one version. Else check the URL (LATHE_URL)."
    return Problem(
        title=title,
        status=response.status_code,
        code=UNEXPECTED_ANSWER,
        detail=f"{response.request.url} answered {response.status_code} {response.reason_phrase}.",
        remedy=remedy,
    )


def _retry_after_seconds(response: httpx.Response) -> float | None:
    """`Retry-After` in seconds; its other form, a date, is not used by this service and is left out."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None
