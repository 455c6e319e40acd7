"""A client that is older than its service reads what it can, and the worker is held to the lists all the same."""

import json
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from rich.console import Console

from app.cli.exits import ExitCode, code_of_job
from app.cli.report_table import print_report
from app.client import Job, LatheApiError
from app.client.shapes import JobEvent, Model, Page, Pass, trial_of
from app.client.transport import read
from app.jobs.report import Report
from tests.app.cli.test_report_table import a_report, a_step
from tests.app.client.answers import JOB, MODEL
from worker.runner.contract import RunnerResult

TRIAL = {"name": "static", "recipe": ["p"], "outcome": "pruned", "explanation": "too slow", "seconds": 1.0}


def answered(document: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json=document, request=httpx.Request("GET", "http://lathe.example/v1/jobs"))


def newer_report() -> dict[str, Any]:
    document = a_report([a_step("optimize_graph", None)]).model_dump(mode="json", by_alias=True)
    document["verdict"]["outcome"] = "met_in_part"
    document["manifest"]["metric"] |= {"name": "perplexity", "of": "tokens"}
    document["deployment"] = {"checks": [{"name": "heat", "outcome": "warm", "words": "-"}], "seconds": 1.0}
    document["search"] = {"explanation": [], "trials": [TRIAL], "front": [], "seconds": 1.0, "ended": "-"}
    return document


def test_a_job_in_a_state_that_is_new() -> None:
    page = read(Page[Job], answered({"items": [JOB | {"state": "paused", "kind": "distill"}]}))
    [job] = page.items
    assert (job.state, job.kind, job.is_over) == ("paused", "distill", False)
    assert json.loads(job.model_dump_json())["state"] == "paused"
    ended = read(Job, answered(JOB | {"state": "replaced", "finished_at": "2026-01-01T00:00:00Z"}))
    assert ended.is_over
    assert not ended.succeeded


def test_a_verdict_that_is_new_is_no_contract_that_holds() -> None:
    verdict = {"outcome": "met_in_part", "reason": "-"}
    assert code_of_job(read(Job, answered(JOB | {"state": "succeeded", "verdict": verdict}))) is ExitCode.UNMET


def test_a_report_with_words_that_are_new_is_read_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    report = read(Report, answered(newer_report()))
    print_report(Console(width=80), report)
    shown = capsys.readouterr().out
    for word in ("met in part", "heat", "warm", "pruned", "perplexity"):
        assert word in shown


def test_the_worker_may_report_nothing_that_is_new() -> None:
    with pytest.raises(ValidationError, match=r"verdict\.outcome"):
        RunnerResult.model_validate_json(json.dumps({"outcome": "succeeded", "report": newer_report()}))
    with pytest.raises(ValidationError, match="state"):
        Job.model_validate(JOB | {"state": "paused"})


def test_a_pass_with_a_need_that_is_new() -> None:
    needs = dict.fromkeys(("calibration_data", "training_data", "labels", "trainable_model", "torch"), False)
    document = {"name": "p", "summary": "-", "json_schema": {}, "available": True, "unavailable_reason": None}
    described = read(Pass, answered(document | {"needs": needs | {"with_arguments": {"gamma": ["a_judge"]}}}))
    assert described.needs.with_arguments == {"gamma": ["a_judge"]}


@pytest.mark.parametrize(
    ("trial", "outcome"), [(TRIAL, "pruned"), ({"name": "static"}, None), ("static", None), (None, None)], ids=str
)
def test_a_trial_is_left_out_where_it_cannot_be_read(trial: object, outcome: str | None) -> None:
    event = {"id": 1, "type": "trial", "at": "2026-01-01T00:00:00Z", "data": {"trial": trial}}
    found = trial_of(JobEvent.model_validate(event))
    assert (found and found.outcome) == outcome


def test_json_of_another_shape_is_a_newer_services() -> None:
    with pytest.raises(LatheApiError, match="newer than this client") as caught:
        read(Job, answered({"id": 7}))
    assert caught.value.code == "unexpected_answer"


def test_what_a_model_came_as_is_not_dropped() -> None:
    assert read(Model, answered(MODEL | {"media_type": "application/x-tar"})).media_type == "application/x-tar"
