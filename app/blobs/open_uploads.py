"""Uploads that are under way: each holds megabytes on their way into storage, for as long as its bytes take to come."""

from app.access.open_at_once import OpenAtOnce
from app.errors import LatheError


class TooManyUploads(LatheError):
    status, code, title = 429, "too_many_uploads", "The workspace sends as many uploads at once as it may"
    sends = ("Retry-After",)


class OpenUploads(OpenAtOnce):
    """How many of them a workspace has open."""

    def _refusal(self, most: int) -> LatheError:
        return TooManyUploads(
            f"{most} uploads are under way.",
            remedy="Wait for some to end; send fewer at once. LATHE_API_OPEN_UPLOADS sets the most.",
            headers={"Retry-After": "5"},
        )
