"""`celery -A tests.worker.holding worker`: the service's Celery application, whose jobs hold until they are let go.

A job is the name of a file in `FOLDER`: the worker writes its process id into it, and the job is over once it is gone.
"""

import os
import time
from pathlib import Path

from app.config import Settings
from app.queue import RUN_JOB, make_celery

app = make_celery(Settings())


@app.task(name=RUN_JOB, ignore_result=True)
def hold(name: str) -> None:
    path = Path(os.environ["FOLDER"], name)
    path.write_text(str(os.getpid()))
    while path.exists():
        time.sleep(0.02)
