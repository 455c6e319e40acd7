"""What clients were told is read back from their journals, and so is what was sent and never answered."""

from pathlib import Path

from tests.faults.storm.journal import Journal, read_journals


def test_a_request_without_an_answer_is_known_to_have_been_sent(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "client.jsonl")
    for job_id in ("heard", "unheard"):
        journal.write("cancel", job_id=job_id)
    journal.write("cancel answer", job_id="heard", status=202, state="running")
    for sha256 in ("aa", "bb"):
        journal.write("upload", workspace=1, sha256=sha256, model_ids=[])
    journal.write("upload", workspace=1, sha256="aa", model_ids=["model"])
    journal.write("list", workspace=0, job_ids=["heard"])
    journal.close()
    told = read_journals([tmp_path / "client.jsonl"])
    assert told.cancels["unheard"] == []
    assert [(answer.status, answer.state) for answer in told.cancels["heard"]] == [(202, "running")]
    assert told.uploads == {(1, "aa"): {"model"}, (1, "bb"): set()}
    assert told.listed == {0: {"heard"}}
    assert len(told.answered_at) == 2
