"""How tests are spread over processes: by groups, each of which one process runs, the costly ones first.

By default xdist begins with the files of most tests, and ends alone with those of one test that takes a minute.
"""

from collections import Counter

import pytest

STACK = "stack"
# Files whose tests share nothing that is costly to make: each test is a group of its own.
DIVIDED = (
    "tests/app/contract/test_openapi.py",
    "tests/worker/runner/search/test_choices.py",
    "tests/worker/runner/search/test_search.py",
    "tests/worker/runner/test_optimize.py",
)
# Together in one process, as they share what is costly to make.
TOGETHER = {
    "tests/worker/passes/test_backend_nodes.py": "backend nodes",
    "tests/worker/engine/trainable/test_backend_nodes.py": "backend nodes",
    "tests/worker/engine/trainable/test_exports.py": "exports",
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


def spread(items: list[pytest.Item]) -> None:
    """Mark every test with its group, and put groups in the order in which they are to begin."""
    on_stack = {_file(item) for item in items if STACK in getattr(item, "fixturenames", ())}
    groups = {item: STACK if _file(item) in on_stack else TOGETHER.get(_file(item), _file(item)) for item in items}
    sizes = Counter(groups.values())
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(item.nodeid if group in DIVIDED else group))
    # Behind the costly ones those of few tests come first: many cheap ones even out the end.
    items.sort(key=lambda item: (_place(groups[item]), sizes[groups[item]], groups[item]))


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _place(group: str) -> int:
    return COSTLY.index(group) if group in COSTLY else len(COSTLY)
