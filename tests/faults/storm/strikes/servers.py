"""Redis and Postgres: killed, wiped, restarted, silent, and answers to commits that get lost."""

import os
import signal
import time
from collections.abc import Callable

from tests.faults.storm.postgres_proxy import Commit
from tests.faults.storm.proxy import Proxy
from tests.faults.storm.strikes.site import Fault, Missed, Site

# As long as it takes until somebody submits, claims or ends a job.
COMMIT_SECONDS = 60.0


def wipe_redis(site: Site) -> str:
    """It keeps nothing on disk: with its process all messages are gone."""
    if not site.installation.strike("redis", signal.SIGKILL):
        raise Missed("redis was down")
    return "redis"


def restart_postgres(site: Site) -> str:
    """An immediate shutdown, as by `pg_ctl stop -m immediate`: no checkpoint, every connection cut."""
    pid = site.installation.pid("postgres")
    if pid is None:
        raise Missed("postgres was down")
    try:
        os.kill(pid, signal.SIGQUIT)
    except ProcessLookupError as gone:
        raise Missed("postgres had just ended") from gone
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
            raise Missed(f"there was none within {COMMIT_SECONDS:.0f} s")
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
    Fault("Postgres restarted immediately", restart_postgres, spends=True),
    Fault("Postgres silent, shorter than the lease", silence(_postgres, 0.1, 0.5), spends=True),
    Fault("Postgres silent past the lease", silence(_postgres, 1.2, 1.5), spends=True),
    *(
        Fault(f"answers to commits lost: {commit}", lose_commits(commit), spends=commit is Commit.CLAIM)
        for commit in Commit
    ),
]
