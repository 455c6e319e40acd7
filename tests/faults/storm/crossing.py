"""Which workspaces the rows of one refer to, and whose marks they bear: asked of every table that there is."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, Row, Table, Text, cast, func, literal, literal_column, select
from sqlalchemy.orm import Session

from app.access.tables import WorkspaceRow
from app.jobs.tables import JobRow
from app.schema import METADATA


@dataclass(frozen=True)
class Tie:
    """So many rows of a workspace that have to do with a workspace, maybe the same; `what` says how."""

    what: str
    workspace: str
    other: str
    rows: int


def ties(session: Session, marks: Mapping[str, str]) -> list[Tie]:
    """Of every table; `marks` are the words that only one workspace's rows hold, by workspace."""
    names = {row.id: row.name for row in session.execute(select(WorkspaceRow.id, WorkspaceRow.name))}
    found = [Tie(what, names[workspace], names[other], rows) for what, workspace, other, rows in _references(session)]
    for name, mark in marks.items():
        found += [Tie(table, names[workspace], name, rows) for table, workspace, rows in _marked(session, mark)]
    return found


def _references(session: Session) -> Iterator[Row[str, UUID, UUID, int]]:
    """Foreign keys between tables whose rows belong to a workspace: `table.column`, both workspaces, rows."""
    for table in METADATA.sorted_tables:
        for key in table.foreign_keys:
            other = key.column.table
            if "workspace_id" in table.c and "workspace_id" in other.c:
                what = literal(f"{table.name}.{key.parent.name}")
                here, there = table.c.workspace_id, other.c.workspace_id
                tied = select(what, here, there, func.count()).select_from(table.join(other, key.parent == key.column))
                yield from session.execute(tied.group_by(here, there))


def _marked(session: Session, mark: str) -> Iterator[Row[str, UUID, int]]:
    """Rows with the mark anywhere in them: their table, their workspace, how many."""
    for table in METADATA.sorted_tables:
        if (owned := _owned(table)) is not None:
            rows, workspace = owned
            bearing = select(literal(table.name), workspace, func.count()).select_from(rows)
            content = cast(literal_column(table.name), Text)
            yield from session.execute(bearing.where(func.strpos(content, mark) > 0).group_by(workspace))


def _owned(table: Table) -> tuple[FromClause, ColumnElement[UUID]] | None:
    """A table with the workspace of each of its rows, which may be that of their job; None where they have none."""
    if "workspace_id" in table.c:
        return table, table.c.workspace_id
    if "job_id" in table.c:
        jobs = JobRow.__table__
        return table.join(jobs, jobs.c.id == table.c.job_id), jobs.c.workspace_id
    return None
