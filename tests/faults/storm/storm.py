"""One storm, from the start of the service to the verdict."""

import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from app.config import JobSettings
from app.storage import Storage
from tests.app.garbage import collect_garbage
from tests.faults.storm.checker import check
from tests.faults.storm.evidence import Evidence, Struck, gather
from tests.faults.storm.installation import WORKSPACES, Installation
from tests.faults.storm.interposing import Interposer
from tests.faults.storm.journal import Journal, read_journals
from tests.faults.storm.load import Load, mark
from tests.faults.storm.plan import Mix, Strike, planned_strikes
from tests.faults.storm.recovery import Recoveries, longest_standstill, recoveries
from tests.faults.storm.strikes import FAULTS, Broken, Missed, NotPossible, Site
from tests.faults.storm.strikes.site import INTERPOSER, SMALL_DISKS
from tests.faults.storm.watching import Watch

# Nothing takes so long: three leases of production, with what comes in between.
PATIENCE_SECONDS = 300.0
# How often a fault that finds nothing to strike is tried, and how long until it is tried again.
TRIES = 3
AGAIN_SECONDS = 3.0
LEASE = "LATHE_JOBS_LEASE_SECONDS"


@dataclass(frozen=True)
class Plan:
    """What a storm is made of; `settings` are variables of every program's environment."""

    jobs: int
    faults: int
    seed: int = 0
    names: Sequence[str] = tuple(FAULTS)
    mix: Mix = field(default_factory=Mix)
    depth: int = 12
    """How many jobs wait or run at a time."""
    settings: Mapping[str, str] = field(default_factory=dict)
    lean: bool = False
    """Whether fewer processes will do (`Installation`)."""
    most_seconds: float = math.inf
    """After which no job is sent and no fault strikes."""

    @property
    def lease_seconds(self) -> float:
        return float(self.settings.get(LEASE, JobSettings().lease_seconds))


@dataclass
class Outcome:
    """What became of it."""

    plan: Plan
    strikes: list[Struck]
    complaints: list[str]
    evidence: Evidence
    seconds: float
    cpu_seconds: float
    """Of the whole machine meanwhile, the clients' among them."""
    garbage_files: int
    """Files that killed processes left, which the collector took."""

    @property
    def struck(self) -> set[str]:
        """The faults that did their harm."""
        return {strike.fault for strike in self.strikes if not strike.skipped}

    @property
    def missed(self) -> list[Struck]:
        """Those that the machine allows, and that found nothing to strike however often they tried."""
        return [strike for strike in self.strikes if strike.skipped and not strike.impossible]

    @property
    def recoveries(self) -> list[Recoveries]:
        return recoveries(self.evidence, self.strikes)

    @property
    def longest_standstill_seconds(self) -> float:
        return longest_standstill(self.evidence)

    @property
    def ends(self) -> Counter[str]:
        """Jobs of the load by how they ended."""
        jobs = [job for job in self.evidence.jobs.values() if job.kind == "optimize"]
        return Counter(f"{job.state} ({job.code})" if job.code else job.state for job in jobs)

    def as_json(self) -> dict[str, Any]:
        """All but the evidence."""
        return {
            "seed": self.plan.seed,
            "jobs": sum(self.ends.values()),
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "ends": dict(self.ends),
            "strikes": [asdict(strike) | {"at": strike.at.isoformat()} for strike in self.strikes],
            "complaints": self.complaints,
            "recoveries": [asdict(one) for one in self.recoveries],
            "longest_standstill_seconds": self.longest_standstill_seconds,
            "garbage_files": self.garbage_files,
        }


class Storm:
    """On a folder of its own, which is kept: logs, journals, and the result."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self._plan = plan
        self._folder = folder
        self._say = say
        self._complaints: list[str] = []
        self._struck: list[Struck] = []
        self._deadline = math.inf
        self._all_struck = threading.Event()
        self._hopeless = threading.Event()
        self._planned = planned_strikes(plan.seed, list(plan.names), plan.faults, plan.jobs)
        needs = {FAULTS[name].needs for name in plan.names}
        folder.mkdir(exist_ok=True)
        self.installation = Installation(
            folder / "data",
            plan.settings,
            lean=plan.lean,
            small_disks=SMALL_DISKS in needs,
            interposer=Interposer(folder) if INTERPOSER in needs else None,
        )

    def run(self) -> Outcome:
        """Start the service, let it happen, stop it. What is broken is in the outcome."""
        journals = self._folder / "journals"
        journals.mkdir(parents=True)
        self.installation.start()
        watch = Watch(self.installation.database)
        try:
            watch.start()
            try:
                return self._run(watch, journals)
            finally:
                watch.stop()
        finally:
            self.installation.stop()

    def end(self) -> None:
        """As if its time were over."""
        self._deadline = 0.0

    def _run(self, watch: Watch, journals: Path) -> Outcome:
        plan = self._plan
        load = Load(
            self.installation,
            journals,
            plan.seed,
            plan.jobs,
            plan.mix,
            plan.depth,
            unfinished=lambda: watch.unfinished,
            hopeless=self._hopeless.is_set,
            enough=self._all_struck.is_set,
            out_of_time=self._out_of_time,
        )
        load.upload()
        began, busy = time.monotonic(), _busy_seconds()
        self._deadline = began + plan.most_seconds
        load.start()
        journal = Journal(journals / "strikes.jsonl")
        site = Site(self.installation, load, watch, journal, plan.lease_seconds)
        try:
            for strike in self._planned:
                if not self._out_of_time():
                    self._strike(strike, site)
        except BaseException:
            self.end()  # a mistake of the storm's own is told at once, not when the load is through
            raise
        finally:
            self._all_struck.set()
            load.join()
            journal.close()
        self._wait(watch, "every job is over", lambda: watch.unfinished == 0)
        seconds = time.monotonic() - began
        return self._judge(watch, load, seconds, _busy_seconds() - busy)

    def _judge(self, watch: Watch, load: Load, seconds: float, cpu_seconds: float) -> Outcome:
        installation = self.installation
        self._wait(
            watch,
            "no runner and no file of one is left",
            lambda: not installation.left_over() and not installation.runners(),
        )
        watch.look()
        garbage = collect_garbage(installation.database, Storage(installation.settings), grace_seconds=0)
        marks = {workspace: mark(workspace) for workspace in WORKSPACES}
        found = gather(installation, watch, read_journals(load.journals()), marks, self._struck)
        complaints = [*self._complaints, *watch.complaints, *check(found)]
        outcome = Outcome(self._plan, self._struck, complaints, found, seconds, cpu_seconds, garbage)
        (self._folder / "result.json").write_text(json.dumps(outcome.as_json(), indent=1))
        return outcome

    def _strike(self, strike: Strike, site: Site) -> None:
        due = f"{strike.after_jobs} jobs are over"
        self._wait(site.watch, due, lambda: site.watch.over >= strike.after_jobs or self._out_of_time())
        self._wait(site.watch, "Postgres and Redis answer", self.installation.servers_answer)
        site.drawn = random.Random(f"{self._plan.seed}/strike/{strike.number}")  # noqa: S311 - it need not be secret
        for _ in range(TRIES):
            struck = self._strike_once(strike, site)
            if not struck.skipped or struck.impossible:
                break
            time.sleep(AGAIN_SECONDS)
            if self._out_of_time():
                return
        self._say(f"{site.watch.over} jobs over; {struck.fault}: {struck.what}")
        self._struck.append(struck)

    def _strike_once(self, strike: Strike, site: Site) -> Struck:
        fault = FAULTS[strike.fault]
        site.struck()
        began, skipped, impossible = time.monotonic(), False, False
        try:
            what = fault.strike(site)
        except (Missed, NotPossible) as reason:
            what, skipped, impossible = str(reason), True, isinstance(reason, NotPossible)
        except (Broken, TimeoutError) as complaint:
            what = str(complaint)
            self._complaints.append(f"{strike.fault}: {complaint}")
        seconds = time.monotonic() - began
        return Struck(
            strike.number,
            strike.fault,
            strike.after_jobs,
            site.struck_at,
            seconds,
            what,
            skipped,
            impossible,
            fault.spends,
        )

    def _out_of_time(self) -> bool:
        return time.monotonic() > self._deadline

    def _wait(self, watch: Watch, what: str, condition: Callable[[], bool]) -> None:
        """Waits as long as something goes on, and complains where nothing does."""
        over = -1
        while watch.over > over:
            over = watch.over
            if watch.wait(condition, PATIENCE_SECONDS):
                return
        self._complaints.append(f"it did not happen in {PATIENCE_SECONDS:.0f} s that {what}")
        self._hopeless.set()


def _busy_seconds() -> float:
    """Processor time of the machine since it was started."""
    times = psutil.cpu_times()
    return float(times.user + times.system)
