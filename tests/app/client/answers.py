"""What a service answers, as tests of its clients have it answer."""

from uuid import UUID

from fastapi.responses import JSONResponse

from app.errors import LatheError

JOB_ID = UUID(int=7)
MODEL = {
    "id": str(UUID(int=1)),
    "name": "a.onnx",
    "status": "ready",
    "problem": None,
    "sha256": "0" * 64,
    "size_bytes": 3,
    "created_at": "2026-01-01T00:00:00Z",
}
JOB = {
    "id": str(JOB_ID),
    "kind": "optimize",
    "state": "queued",
    "phase": None,
    "progress": 0.0,
    "eta_seconds": None,
    "queue_position": 0,
    "attempt": 0,
    "max_attempts": 3,
    "model_id": MODEL["id"],
    "request": None,
    "cancel_requested_at": None,
    "created_at": "2026-01-01T00:00:00Z",
    "started_at": None,
    "finished_at": None,
    "error": None,
    "verdict": None,
    "summary": None,
    "artifacts": [],
}


def refusal(error: LatheError, **headers: str) -> JSONResponse:
    problem = error.problem()
    return JSONResponse(problem.model_dump(), problem.status, headers, "application/problem+json")
