"""Cursor paging: newest first, by the time-ordered id of a row."""

import base64
from collections.abc import Sequence
from itertools import accumulate, takewhile
from typing import Annotated, Any, Generic, Protocol, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field
from sqlalchemy import Select, func, literal
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import InvalidCursor

# A page is built and written by the event loop, which all other requests wait for meanwhile.
MAX_PAGE_BYTES = 4 << 20

Limit = Annotated[int, Query(ge=1, le=200, description="Items a page, at most; fewer where they are large.")]
Cursor = Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")]


Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item] = Field(description="The items, newest first.")
    next_cursor: str | None = Field(description="Ask with this as `cursor` for the next page; null on the last.")


class HasId(Protocol):
    @property
    def id(self) -> Any: ...  # a mapped column on the class, a UUID on a row


Row = TypeVar("Row", bound=HasId)


def encode_cursor(row_id: UUID) -> str:
    return base64.urlsafe_b64encode(row_id.bytes).decode().rstrip("=")


def decode_cursor(cursor: str) -> UUID:
    """The id that `encode_cursor` was given. Raises InvalidCursor where the text is no cursor of ours."""
    try:
        return UUID(bytes=base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except ValueError as error:
        raise InvalidCursor(f"`{cursor}` is no cursor.", remedy="Leave `cursor` out to begin again.") from error


def page_of(statement: Select[Any], id_column: Any, limit: int, cursor: str | None) -> Select[Any]:
    """The statement that fetches a page and one row more, which tells whether another page follows."""
    if cursor is not None:
        statement = statement.where(id_column < decode_cursor(cursor))
    return statement.order_by(id_column.desc()).limit(limit + 1)


async def short_page_of(
    session: AsyncSession,
    statement: Select[Any],
    id_column: Any,
    limit: int,
    cursor: str | None,
    *large: Any,
) -> tuple[Select[Any], str | None]:
    """The statement that fetches a page, and the cursor of the next: for rows of which columns may be `large`.

    A page ends early with the row that brings those past MAX_PAGE_BYTES. Their sizes are asked first, and are told by
    rows without reading the columns, which the migrations have stored uncompressed for it.
    """
    size = sum((func.coalesce(func.pg_column_size(column), 0) for column in large), start=literal(0))
    sizes = statement.with_only_columns(id_column.label("id"), size.label("size"))
    rows = (await session.execute(page_of(sizes, id_column, limit, cursor))).all()
    before = accumulate((row.size for row in rows), initial=0)
    fitting = sum(1 for _ in takewhile(lambda size: size < MAX_PAGE_BYTES, before))
    page, next_cursor = cut(rows, min(limit, fitting))
    ids = [row.id for row in page]
    return statement.where(id_column.in_(ids)).order_by(id_column.desc()), next_cursor


def cut(rows: Sequence[Row], limit: int) -> tuple[Sequence[Row], str | None]:
    """The rows of this page, and the cursor of the next."""
    page = rows[:limit]
    return page, encode_cursor(page[-1].id) if len(rows) > limit else None
