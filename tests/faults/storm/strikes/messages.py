"""Messages that nobody should have sent."""

import json
from contextlib import closing
from uuid import UUID

import redis
from sqlalchemy import text

from app.queue import RUN_JOB, Queue, make_celery, plain_url
from tests.faults.storm.strikes.site import Broken, Fault, Missed, Site

TIMES = 100
QUEUE = "cpu"
# One that waits, one that runs, one that is over, as far as there are such.
EXAMPLES = text("SELECT DISTINCT ON (state) id, state FROM jobs WHERE kind = 'optimize' ORDER BY state, id DESC")


def deliver_many_times(site: Site) -> str:
    """A wake-up for one job of each state, again and again."""
    with site.installation.database.session_scope() as session:
        jobs = {row.state: row.id for row in session.execute(EXAMPLES)}
    with closing(Queue(site.installation.settings)) as queue:
        sent = [queue.wake(job_id, QUEUE, 1) for _ in range(TIMES) for job_id in jobs.values()]
    if not any(sent):
        raise Missed("there was no job, or no broker")
    return f"{TIMES} times for a job that was " + ", ".join(sorted(jobs))


def forge(site: Site) -> str:
    """Jobs that do not exist, arguments that are none, a task that nobody knows, and what is no message at all."""
    unknown = UUID(int=site.drawn.getrandbits(128), version=4)
    with closing(make_celery(site.installation.settings)) as celery:
        for arguments in ([str(unknown)], ["'; DROP TABLE jobs; --"], [None], [{"id": 1}], [], [1, 2, 3]):
            celery.send_task(RUN_JOB, args=arguments, queue=QUEUE, ignore_result=True)
        celery.send_task("os.system", args=["true"], queue=QUEUE, ignore_result=True)
    with redis.Redis.from_url(plain_url(site.installation.settings.redis_url.get_secret_value())) as server:
        server.lpush(QUEUE, b"\xff no message", json.dumps({"body": "no message either"}))
    with site.installation.database.session_scope() as session:
        if session.scalar(text("SELECT count(*) FROM jobs WHERE id = :id"), {"id": unknown}):
            raise Broken("a forged message made a job")
    return "9 messages"


MESSAGES = [
    Fault("a message delivered 100 times", deliver_many_times),
    Fault("forged messages", forge),
]
