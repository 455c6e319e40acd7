"""Every kind of hostile or broken file, uploaded over HTTP: each answers with its own code, and the worker lives on."""

from itertools import chain
from pathlib import Path

import pytest

from tests.faults.service import Service
from tests.worker.runner.hostile.archives import ARCHIVES
from tests.worker.runner.hostile.case import Hostile
from tests.worker.runner.hostile.datasets import DATASETS
from tests.worker.runner.hostile.models import MODELS

# Each of these has its own test on the runner; here one a code goes the whole way. Left out: files over a gigabyte,
# which add the time to copy them and nothing else, and what is too large only for a runner given less memory.
LARGEST_BYTES = 1 << 30
DEPENDS_ON_MEMORY = "dataset_too_large"


def one_a_code(cases: list[Hostile]) -> list[Hostile]:
    return list({case.code: case for case in reversed(cases)}.values())


CASES = [("models", case) for case in one_a_code(list(chain(MODELS, ARCHIVES)))] + [
    ("datasets", case) for case in one_a_code(DATASETS) if case.code != DEPENDS_ON_MEMORY
]


@pytest.mark.long
@pytest.mark.timeout(170)
def test_each_kind_is_refused_with_its_own_code_and_the_worker_lives_on(service: Service, tmp_path: Path) -> None:
    before = service.stack.pid("inspector")
    expected: dict[str, str] = {}
    for number, (kind, case) in enumerate(CASES):
        path = tmp_path / str(number)
        case.write(path)
        if path.stat().st_size > LARGEST_BYTES:
            continue
        with path.open("rb") as content:
            answer = service.client.post(
                f"/v1/{kind}", params={"name": case.name}, content=content, headers={"Content-Type": case.media_type}
            )
        if path.stat().st_size == 0:
            assert answer.json()["code"] == "empty_upload"
            continue
        assert answer.status_code == 201, (case.name, answer.text)
        expected[f"/v1/{kind}/{answer.json()['id']}"] = case.code
    found = {}
    for path_ in expected:
        service.wait(lambda path_=path_: service.client.get(path_).json()["status"] != "inspecting")
        upload = service.client.get(path_).json()
        found[path_] = upload["problem"]["code"] if upload["problem"] else upload["status"]
        assert upload["problem"] is None or upload["problem"]["detail"]
    assert found == expected
    assert len(set(expected.values())) > 25  # of models, archives and datasets together

    assert service.stack.pid("inspector") == before
    assert service.upload()
    service.assert_nothing_left_over()
