"""Models of a kilobyte that ask for terabytes, while others' jobs run."""

from tests.faults.storm.installation import WORKSPACES
from tests.faults.storm.load import marked
from tests.faults.storm.strikes.site import Broken, Fault, Site
from tests.worker.runner.hostile.programs import PROGRAMS

BOMBS = ("constant-of-shape", "tile", "outer-product", "range", "pad")
OVER_SECONDS = 300.0
AT_ONCE = 2


def drop_bombs(site: Site) -> str:
    """Raises Broken where one of them succeeds."""
    names = site.drawn.sample(BOMBS, AT_ONCE)
    jobs = []
    for name in names:
        model_id = site.upload(marked(PROGRAMS[name](), WORKSPACES[1], name), workspace=1)
        jobs.append(site.submit(model_id, "bomb", workspace=1))
    codes = []
    for job_id in jobs:
        job = site.job_once_over(job_id, OVER_SECONDS, workspace=1)
        codes.append(str((job["error"] or {}).get("code")))
        if job["state"] != "failed":
            raise Broken(f"a bomb ended {job['state']}")
    return ", ".join(f"{name} ({code})" for name, code in zip(names, codes, strict=True))


MEMORY = [Fault("memory bombs", drop_bombs, spends=True)]
