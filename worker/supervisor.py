"""One attempt at one job: claim, fetch, spawn the runner, listen, publish, finish.

No transaction is open while the runner runs. Whatever happens, the attempt ends in one of four ways: the job is over,
the job is queued again, the lease is somebody else's (and nothing is written), or this process is dead (and
housekeeping takes the job back).
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import structlog

from app.config import Settings
from app.database import DATABASE_AWAY, Database
from app.errors import OurFault
from app.jobs import lease, turns
from app.jobs.lease import Claim
from app.storage import Storage
from app.tracing import Span, Tracing
from worker import sandbox
from worker.abilities import can_train
from worker.carrying import CLOSING_SECONDS
from worker.checkpoints import Keeper
from worker.cores import threads_for_models
from worker.delivery import Delivery
from worker.failures import (
    MORE_DISK,
    UPLOAD_AGAIN,
    JobFailed,
    NotFetched,
    ResultNotStored,
    UnreadableRequest,
    death,
    is_shortage,
    not_stored,
    ours,
    out_of_memory,
    out_of_time,
)
from worker.fetching import UnreadableInput, WorkFolderTooSmall, fetch
from worker.heart import Heart
from worker.held import RESULT_NOT_STORED, Held, LeaseLost
from worker.listener import Listener
from worker.memory import affordable_bytes, out_of_memory_kills
from worker.provisional import Nominations
from worker.publishing import RunnerBroken, read_result
from worker.runner.contract import EVENT_FD_VARIABLE, RunnerJob
from worker.search_cache import Pieces
from worker.stop import Stop, Stopping
from worker.work_folders import work_folder
from worker.written import Written

# -P: nothing is imported from the work folder.
RUNNER = (sys.executable, "-P", "-m", "worker.runner")
WATCH_SECONDS = 0.1
STDERR_TAIL_BYTES = 4096
# Beyond a job's time, for bringing its files and taking them away.
TRANSFER_SECONDS = 3600.0
OUTCOME = "lathe.outcome"
log = structlog.get_logger()


class Cancelled(Exception):
    """The user asked for it."""


@dataclass(frozen=True)
class End:
    """How a runner ended: its exit status, the tail of what it said on stderr, whether the kernel ended one of its
    processes for lack of memory, and the most that they held together, where a control group counted.
    """

    status: int
    errors: str
    lacked_memory: bool
    peak_bytes: int | None = None


@dataclass
class Supervisor:
    """Runs attempts; one instance a worker process, called from many threads."""

    settings: Settings
    database: Database
    storage: Storage
    stopping: Stop
    tracing: Tracing = field(default_factory=Tracing)

    def run(self, job_id: UUID) -> None:
        """Run one attempt at the job whose turn it is in this one's queue, if there is one to be taken."""
        began_ns = time.time_ns()
        claim = self._claim(job_id)
        if claim is None:
            return
        with (
            structlog.contextvars.bound_contextvars(
                request_id=claim.request_id, job_id=str(claim.job_id), fence=claim.fence, attempt=claim.attempt
            ),
            self.tracing.span(
                f"attempt {claim.kind}",
                parent=claim.traceparent,
                since_ns=began_ns,
                kind="consumer",
                attributes={
                    "lathe.job_id": str(claim.job_id),
                    "lathe.attempt": claim.attempt,
                    "lathe.fence": claim.fence,
                },
            ) as span,
        ):
            self.tracing.past("claim", began_ns, time.time_ns())
            log.info("attempt_started", kind=claim.kind)
            until = claim.budget_seconds + self.settings.runner.grace_seconds + TRANSFER_SECONDS
            with Heart(self.database, claim, self.settings.jobs, until) as heart:
                self._run_claimed(Held(claim, self.database, self.settings.jobs), heart, span)

    def _claim(self, job_id: UUID) -> Claim | None:
        holder = f"{socket.gethostname()}:{os.getpid()}"
        threads, trains = threads_for_models(self.settings), can_train(self.settings)
        jobs, most = self.settings.jobs, self.settings.limits.running_jobs
        with self.database.session_scope() as session:
            chosen = turns.next_in_queue(session, job_id, threads=threads, can_train=trains, default_running_jobs=most)
            if chosen is None:
                again = jobs.republish_seconds
                turns.call_again(session, job_id, threads=threads, republish_seconds=again, default_running_jobs=most)
                return None
            return lease.claim(session, chosen, holder, jobs.lease_seconds, threads=threads, can_train=trains)

    def _run_claimed(self, held: Held, heart: Heart, span: Span) -> None:
        try:
            with work_folder(self.settings.work_folder) as folder:
                self._attempt(held, folder, heart)
            log.info("attempt_succeeded")
            span.note({OUTCOME: "succeeded"})
        except LeaseLost:
            log.warning("lease_lost")
            span.note({OUTCOME: "lease_lost"})
        except Cancelled:
            held.cancel()
            log.info("attempt_cancelled")
            span.note({OUTCOME: "cancelled"})
        except Stopping:
            held.hand_back()
            log.info("attempt_handed_back")
            span.note({OUTCOME: "handed_back"})
        except JobFailed as failure:
            span.fail(failure.fault.code)
            held.fail(failure)
        except NotFetched as unfetched:
            span.fail(type(unfetched.__cause__).__name__)
            log.warning("job_not_fetched", error=repr(unfetched.__cause__))
            held.defer(unfetched.__cause__)
        except ResultNotStored as unstored:
            span.fail(RESULT_NOT_STORED)
            log.warning("result_not_stored", error=repr(unstored.__cause__))
            held.repeat(RESULT_NOT_STORED, not_stored(unstored.__cause__))
        except Exception as error:  # the attempt ends here, whatever it was; the log keeps the trace
            span.fail(type(error).__name__)
            log.exception("attempt_broke")
            if is_shortage(error):
                held.defer(error)
                return
            fault = ours(OurFault.INTERNAL_ERROR, f"The attempt broke: {type(error).__name__}.")
            held.fail(JobFailed(fault, retryable=True))

    def _attempt(self, held: Held, folder: Path, heart: Heart) -> None:
        claim = held.claim
        with self.tracing.span("fetch"):
            job = self._fetch(claim, folder, heart)
        started = time.monotonic()
        with self.tracing.span("runner"):
            end = self._run_child(claim, job, folder, heart)
        runner_seconds = round(time.monotonic() - started, 3)
        try:
            result = read_result(folder, claim.kind)
        except RunnerBroken as broken:
            raise JobFailed(ours(OurFault.RUNNER_CRASHED, f"The runner broke: {broken}."), retryable=True) from broken
        if result is None:
            log.warning("runner_died", status=end.status, stderr=end.errors)
            fault, retryable = death(claim.kind, end.status)
            if end.lacked_memory:
                fault, retryable = out_of_memory(job.memory_bytes), False
            passing = fault.code == OurFault.DISK_FULL
            # It did not live to say what it took.
            raise JobFailed(fault, retryable=retryable, passing=passing, peak_memory_bytes=end.peak_bytes)
        if result.outcome == "failed":
            if result.retryable:
                log.warning("runner_failed", stderr=end.errors)
            fault = result.fault or ours(OurFault.INTERNAL_ERROR, "The runner gave no reason.")
            passing = result.retryable and fault.code == OurFault.DISK_FULL
            memory = result.peak_memory_bytes
            raise JobFailed(fault, retryable=result.retryable, passing=passing, peak_memory_bytes=memory)
        with self.tracing.span("publish"):
            Delivery(held, self.storage, heart.lost, self.stopping).deliver(result, folder, runner_seconds)

    def _fetch(self, claim: Claim, folder: Path, heart: Heart) -> RunnerJob:
        """What the job needs, brought to the runner's folder. Raises JobFailed, NotFetched."""
        try:
            return fetch(self.database, self.storage, self.settings, claim, folder, lambda: self._check_going_on(heart))
        except UnreadableInput as unreadable:
            fault = ours(unreadable.code, f"Storage failed the job: {unreadable}.", UPLOAD_AGAIN)
            raise JobFailed(fault, retryable=True) from unreadable
        except WorkFolderTooSmall as small:
            fault = ours(OurFault.DISK_FULL, f"The work folder cannot hold the job's files: {small}.", MORE_DISK)
            raise JobFailed(fault, retryable=True) from small  # another worker may have a larger disk
        except (*DATABASE_AWAY, UnreadableRequest) as lacking:
            raise NotFetched from lacking

    def _run_child(self, claim: Claim, job: RunnerJob, folder: Path, heart: Heart) -> End:
        """Run the child to its end."""
        limits, kills = self._limits(claim), out_of_memory_kills()
        written = Written(folder.parent, self.settings.runner.disk_bytes)
        with (
            self._hearing(claim, folder) as (listener, events),
            sandbox.memory_group(limits.memory_bytes) as group,
            (folder.parent / "stderr").open("w+b") as stderr,
        ):
            with events:
                process = sandbox.spawn(
                    [*RUNNER, str(folder)],
                    workdir=folder,
                    limits=limits,
                    event_fd=events.fileno(),
                    env={EVENT_FD_VARIABLE: str(events.fileno())},
                    stderr=stderr,
                    group=None if group is None else group.folder,
                )
            try:
                self._attend(process, listener, heart, job, written)
            finally:
                sandbox.kill_group(process)
            # By the size of the file: the runner shares the descriptor, and may have moved its offset.
            stderr.seek(max(0, os.fstat(stderr.fileno()).st_size - STDERR_TAIL_BYTES))
            errors = stderr.read(STDERR_TAIL_BYTES).decode(errors="replace")
            if group is not None:
                return End(process.returncode, errors, group.kills() > 0, group.peak_bytes())
            killed = process.returncode == -signal.SIGKILL
            return End(process.returncode, errors, killed and out_of_memory_kills() > kills)

    @contextmanager
    def _hearing(self, claim: Claim, folder: Path) -> Iterator[tuple[Listener, BinaryIO]]:
        """Who listens to a runner and takes what it leaves, and where the runner is to speak. What was said and left by
        the end of the block is then written down, and no thread and no descriptor stays, wherever this breaks off.
        """
        read_fd, write_fd = os.pipe()
        carrying: list[Keeper | Nominations | Pieces] = []
        with ExitStack() as stack:
            events = stack.enter_context(os.fdopen(write_fd, "wb"))
            unheard = stack.enter_context(ExitStack())
            unheard.callback(os.close, read_fd)
            stack.callback(_close, carrying)
            carrying.append(keeper := Keeper(self.database, self.storage, claim, folder))
            carrying.append(nominations := Nominations(self.database, self.storage, claim, folder))
            carrying.append(pieces := Pieces(self.settings, self.database, self.storage, claim, folder))
            listener = Listener(claim, read_fd, keeper.offer, nominations.offer, pieces.offer)
            unheard.pop_all()  # the listener closes it
            try:
                yield listener, events
            finally:
                events.close()
                listener.close()
                listener.flush(self.database, force=True)
                self._trace_phases(listener.phases)

    def _trace_phases(self, phases: list[tuple[str, int]]) -> None:
        """Each until the next began, and the last until now."""
        for (name, began_ns), (_, end_ns) in pairwise([*phases, ("", time.time_ns())]):
            self.tracing.past(name, began_ns, end_ns)

    def _attend(
        self, process: subprocess.Popen[bytes], listener: Listener, heart: Heart, job: RunnerJob, written: Written
    ) -> None:
        """Wait for the child's end. Raises what must end it before."""
        seconds = job.budget_seconds + self.settings.runner.grace_seconds
        deadline = time.monotonic() + seconds
        while True:
            try:
                process.wait(timeout=WATCH_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            else:
                return
            if heart.cancelled.is_set() and not heart.lost.is_set():
                sandbox.terminate(process, self.settings.jobs.cancel_grace_seconds)
            self._check_going_on(heart)
            if time.monotonic() > deadline:
                raise JobFailed(out_of_time(job.kind, seconds), retryable=False)
            written.look()
            if listener.flush(self.database):
                heart.cancelled.set()

    def _check_going_on(self, heart: Heart) -> None:
        """Raises what must end the attempt."""
        if heart.lost.is_set():
            raise LeaseLost
        if heart.cancelled.is_set():
            raise Cancelled
        if self.stopping.is_set():
            raise Stopping

    def _limits(self, claim: Claim) -> sandbox.Limits:
        runner = self.settings.runner
        cuda = claim.request is not None and claim.request["target"]["device"] == "cuda"
        return sandbox.Limits(
            memory_bytes=affordable_bytes(runner.memory_bytes),
            file_bytes=runner.file_bytes,
            processes=runner.processes,
            address_space=not cuda,
        )


def _close(carrying: Iterable[Keeper | Nominations | Pieces]) -> None:
    """What is on its way with any of them may arrive, for so long in all."""
    closing = time.monotonic() + CLOSING_SECONDS
    for one in carrying:
        one.close(closing - time.monotonic())
