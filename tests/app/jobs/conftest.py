"""What tests of jobs share."""

from typing import Any
from uuid import UUID

import pytest

from app.database import Database
from tests.app.jobs.factories import add_model


@pytest.fixture
def body(database: Database, workspace_id: UUID) -> dict[str, Any]:
    return {"model_id": str(add_model(database, workspace_id)), "recipe": [{"pass": "optimize_graph"}]}
