"""Jobs as they go on: what happens to them, until they are over."""

import math
import time
from collections.abc import Callable, Iterator
from uuid import UUID

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

from app.client.calls import FIRST_POLL_SECONDS, POLL_SECONDS, WAIT_SECONDS, Calls, sleep_before
from app.client.errors import LatheApiError, ServiceUnreachable
from app.client.shapes import Job, JobEvent, JobEvents, trial_of
from app.client.submission import id_of
from app.client.transport import OUTAGE_SECONDS, read
from app.jobs.report import TrialReport

EVENTS_A_PAGE = 500


class FollowingCalls(Calls):
    """What `Lathe` can do to follow a job."""

    def job(self, job_id: UUID | str) -> Job:
        """One job."""
        return self._get(Job, f"/v1/jobs/{job_id}")

    def wait(
        self,
        job: Job | UUID | str,
        *,
        on_update: Callable[[Job], None] | None = None,
        on_event: Callable[[JobEvent], None] | None = None,
        timeout_seconds: float = WAIT_SECONDS,
    ) -> Job:
        """The job when it is over, however it ended; `on_update` is called with it now and at every change, and
        `on_event` with each of its events, from the first one on.

        The service may be away for two minutes meanwhile. Raises WaitTimeout after `timeout_seconds`, also where the
        service is away then.
        """
        path, what = f"/v1/jobs/{id_of(job)}", f"job {id_of(job)} is not known to be over"
        deadline = time.monotonic() + timeout_seconds
        headers: dict[str, str] = {}
        after = 0
        while True:
            response = self._look(path, what, deadline, headers=headers)
            # After the job: one that is over has every event by then.
            if on_event is not None:
                for event in self._events_so_far(path, after, what, deadline):
                    after = event.id
                    on_event(event)
            if response.status_code != httpx.codes.NOT_MODIFIED:
                current = read(Job, response)
                headers = {"If-None-Match": etag} if (etag := response.headers.get("ETag")) else {}
                if on_update is not None:
                    on_update(current)
                if current.is_over:
                    return current
            retry_after = response.headers.get("Retry-After", "")
            pause = max(float(retry_after), FIRST_POLL_SECONDS) if retry_after.isdigit() else POLL_SECONDS
            sleep_before(deadline, pause, what)

    def recorded_events(self, job: Job | UUID | str, *, after: int = 0) -> list[JobEvent]:
        """What has happened to a job so far, later than the event with the id `after`, oldest first."""
        return self._events_so_far(f"/v1/jobs/{id_of(job)}", after)

    def _events_so_far(self, path: str, after: int, what: str = "", deadline: float = math.inf) -> list[JobEvent]:
        headers = {"Accept": "application/json"}
        found: list[JobEvent] = []
        while True:
            params = {"after": found[-1].id if found else after, "limit": EVENTS_A_PAGE}
            answer = self._look(f"{path}/events", what, deadline, params=params, headers=headers)
            page = read(JobEvents, answer).items
            if not page:
                return found
            found += page  # fewer than were asked for where they are large

    def events(self, job: Job | UUID | str, *, after: int = 0) -> Iterator[JobEvent]:
        """What happens to a job, as it happens, until it is over; a broken stream is taken up after the last event.

        Raises LatheApiError where something else answers than a stream of events, and ServiceUnreachable.
        """
        path = f"/v1/jobs/{id_of(job)}"
        while True:
            headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", "Last-Event-ID": str(after)}
            with self._transport.open(f"{path}/events", headers=headers, retry_seconds=OUTAGE_SECONDS) as response:
                try:
                    for message in _messages(response):
                        if message.data:
                            event = JobEvent.model_validate_json(message.data)
                            after = event.id
                            yield event
                except httpx.DecodingError as error:  # a proxy's, and the same the next time
                    raise ServiceUnreachable(self._transport.url, error) from error
                except httpx.TransportError:
                    time.sleep(POLL_SECONDS)
                    continue
            # A service that shuts down ends its streams as well.
            if read(Job, self._look(path)).is_over:
                return

    def trials(self, job: Job | UUID | str) -> list[TrialReport]:
        """What a search has tried so far, in that order, also where it did not come to its end and has no report."""
        tried = filter(None, map(trial_of, self.recorded_events(job)))
        return list({one.name: one for one in tried}.values())


def _messages(response: httpx.Response) -> Iterator[ServerSentEvent]:
    try:
        yield from EventSource(response).iter_sse()
    except SSEError as error:  # a TransportError by its class, and no passing one
        response.read()
        raise LatheApiError.from_response(response) from error
