"""Redis and Postgres: killed, wiped, restarted, silent, and answers to commits that get lost."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from tests.faults.storm.postgres_proxy import Commit
from tests.faults.storm.proxy import Proxy
from tests.faults.storm.strikes.site import Fault, NotPossible, Site

# As long as it takes until somebody submits, claims or ends a job.
COMMIT_SECONDS = 60.0


def wipe_redis(site: Site) -> str:
    """It keeps nothing on disk: with its process all messages are gone."""
    return "redis" if site.installation.strike("redis", signal.SIGKILL) else "redis, which was down"


def restart_postgres(site: Site) -> str:
    """An immediate shutdown, as by `pg_ctl stop -m immediate`: no checkpoint, every connection cut."""
    pid = site.installation.pid("postgres")
    if pid is None:
        return "postgres, which was down"
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGQUIT)
    return "postgres"


def silence(which: Callable[[Site], Proxy], least: float, most: float) -> Callable[[Site], str]:
    """Nothing passes for a while that is drawn, as a share of the lease."""

    def strike(site: Site) -> str:
        seconds = site.lease_seconds * site.drawn.uniform(least, most)
        proxy = which(site)
        proxy.swallow_everything()
        try:
            time.sleep(seconds)
        finally:
            proxy.flow()
        return f"for {seconds:.0f} s"

    return strike


def lose_commits(commit: Commit) -> Callable[[Site], str]:
    """It happened, and who asked for it does not know."""

    def strike(site: Site) -> str:
        if not site.installation.services.postgres_proxy.lose_answer(commit, COMMIT_SECONDS):
            raise NotPossible(f"there was none within {COMMIT_SECONDS:.0f} s")
        site.struck()
        return "the next one"

    return strike


def _redis(site: Site) -> Proxy:
    return site.installation.services.redis_proxy


def _postgres(site: Site) -> Proxy:
    return site.installation.services.postgres_proxy


SERVERS = [
    Fault("Redis killed and wiped", wipe_redis),
    Fault("Redis silent", silence(_redis, 0.3, 1.5)),
    Fault("Postgres restarted immediately", restart_postgres),
    Fault("Postgres silent, shorter than the lease", silence(_postgres, 0.1, 0.5)),
    Fault("Postgres silent past the lease", silence(_postgres, 1.2, 1.5)),
    *(Fault(f"answers to commits lost: {commit}", lose_commits(commit)) for commit in Commit),
]
