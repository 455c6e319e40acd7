"""A load of jobs on a whole service while faults strike it, checked at the end; the long form of `tests/faults`.

    python -m benchmarks.faults --jobs 300 --faults 40
    python -m benchmarks.faults --jobs 10000 --faults 500 --seed 7
    python -m benchmarks.faults --jobs 10000 --faults 500 --lease 15
    python -m benchmarks.faults --jobs 10000 --faults 500 --minutes 120    ends then, with what there was

The leases are those of production unless shorter ones are asked for: much of the time goes by waiting until one is
over. The same seed gives the same jobs and the same faults in the same order; what they meet depends on the machine.
Ctrl-C ends it as its time does: no job is sent and nothing strikes any more, and what there was is checked. Exit status
1 where an invariant was broken, or a fault that the machine allows found nothing to strike.
"""

import argparse
import math
import os
import signal
import sys
import tempfile
from pathlib import Path

from app.config import JobSettings
from tests.faults.storm.plan import Mix
from tests.faults.storm.storm import Outcome, Plan, Storm
from tests.faults.storm.strikes import FAULTS


def main() -> int:
    arguments = _arguments()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    mix = Mix(*(int(share) for share in arguments.mix.split(",")))
    names = [name for name in FAULTS if arguments.only in name]
    plan = Plan(
        arguments.jobs,
        arguments.faults,
        arguments.seed,
        names,
        mix,
        settings=leases(arguments.lease),
        most_seconds=arguments.minutes * 60,
    )
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="lathe-faults-"))
    print(f"seed {plan.seed}; logs, journals and the result are kept in {folder}", flush=True)
    storm = Storm(plan, folder, say=lambda line: print(f"  {line}", flush=True))
    signal.signal(signal.SIGINT, lambda _number, _frame: storm.end())
    outcome = storm.run()
    report(outcome)
    return 1 if outcome.complaints or outcome.missed else 0


def leases(seconds: float) -> dict[str, str]:
    """As variables, with what goes by them in proportion; of production's length where `seconds` is that."""
    usual = JobSettings()
    share = seconds / usual.lease_seconds
    return {
        "LATHE_JOBS_LEASE_SECONDS": str(seconds),
        "LATHE_JOBS_HEARTBEAT_SECONDS": str(share * usual.heartbeat_seconds),
        "LATHE_JOBS_REPUBLISH_SECONDS": str(share * usual.republish_seconds),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--faults", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no job and no fault after them")
    parser.add_argument("--lease", type=float, default=JobSettings().lease_seconds, help="seconds")
    parser.add_argument("--only", default="", help="only faults whose name holds this")
    parser.add_argument(
        "--mix", default="30,40,30", help="shares of jobs that succeed, fail by their model, are cancelled"
    )
    parser.add_argument("--folder", help="where to work; a new temporary folder by default")
    return parser.parse_args()


def report(outcome: Outcome) -> None:
    """As Markdown, for RESULTS.md."""
    total, invariants = sum(outcome.ends.values()), len(outcome.complaints)
    struck = [strike for strike in outcome.strikes if not strike.skipped]
    print(f"\n{total} jobs in {outcome.seconds:.0f} s ({total / outcome.seconds:.2f} a second), {len(struck)} faults, ")
    print(f"{outcome.cpu_seconds / total:.1f} s of processor time a job, with all that is around it; ", end="")
    print(f"{invariants} invariants broken; the longest time that a job stood still: ", end="")
    print(f"{outcome.longest_standstill_seconds:.1f} s; {outcome.garbage_files} files left for the collector.\n")
    print("| how jobs ended | jobs |\n| --- | --- |")
    for end, count in outcome.ends.most_common():
        print(f"| {end} | {count} |")
    print("\n| fault | times | until all went on, median | longest |\n| --- | --- | --- | --- |")
    for one in outcome.recoveries:
        print(f"| {one.fault} | {one.strikes} | {one.median_seconds:.1f} s | {one.longest_seconds:.1f} s |")
    for strike in outcome.strikes:
        if strike.skipped:
            print(f"\nNot struck: {strike.fault}: {strike.what}")
    for complaint in outcome.complaints:
        print(f"\nBROKEN: {complaint}")


if __name__ == "__main__":
    sys.exit(main())
