"""How tests are spread over processes: by groups, each of which one process runs, the costly ones first.

By default xdist begins with the files of most tests, and ends alone with those of one test that takes a minute. Its own
way to name groups is lost on present versions of pytest, whose tests compute their ids.
"""

from collections import Counter

import pytest
from xdist.scheduler import LoadScopeScheduling

# What lies in these folders talks to one service, which takes 15 s to start.
ON_STACK = ("tests/app/cli/", "tests/journeys/")
STACK = "stack"
# Files whose tests share nothing that is costly to make: each test is a group of its own.
DIVIDED = (
    "tests/worker/runner/search/test_choices.py",
    "tests/worker/runner/search/test_search.py",
    "tests/worker/runner/test_optimize.py",
)
# Together in one process, as they share what is costly to make.
TOGETHER = {
    "tests/worker/passes/test_backend_nodes.py": "backend nodes",
    "tests/worker/engine/trainable/test_backend_nodes.py": "backend nodes",
    "tests/worker/engine/trainable/test_exports.py": "exports",
    "tests/worker/engine/trainable/test_masked_attention.py": "exports",
    "tests/worker/engine/trainable/test_parting.py": "exports",
}
# Those that take the longest. No two of one test beside each other: a process fetches its next group while it has two
# tests to do.
COSTLY = (
    STACK,
    "tests/app/contract/test_openapi.py",
    "tests/worker/passes/test_hostile.py",
    "tests/faults/test_storm.py",
    "tests/worker/passes/test_contract.py",
    "tests/worker/runner/search/test_choices.py",
    "backend nodes",
    "tests/app/blobs/test_streaming.py",
    "tests/worker/runner/search/test_search.py",
    "exports",
    "tests/worker/runner/test_optimize.py",
    "tests/worker/runner/search/test_continuing.py",
    "tests/worker/runner/test_chains.py",
    "tests/worker/test_supervisor.py",
    "tests/worker/test_interrupted_searches.py",
    "tests/worker/passes/test_quantize_aware_training.py",
    "tests/app/test_embedded.py",
    "tests/worker/runner/test_training_jobs.py",
    "tests/worker/runner/test_deployment_jobs.py",
    "tests/worker/runner/test_deployment.py",
)


class Spread(LoadScopeScheduling):
    """Hands out groups in the order of the first test of each."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if _file(nodeid) in DIVIDED else _group(nodeid)


def put_in_order(items: list[pytest.Item]) -> None:
    """Behind the costly groups those of few tests come first: many cheap ones even out the end."""
    sizes = Counter(_group(item.nodeid) for item in items)

    def place(item: pytest.Item) -> tuple[int, int, str]:
        group = _group(item.nodeid)
        return COSTLY.index(group) if group in COSTLY else len(COSTLY), sizes[group], group

    items.sort(key=place)


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def _group(nodeid: str) -> str:
    file = _file(nodeid)
    return STACK if file.startswith(ON_STACK) else TOGETHER.get(file, file)
