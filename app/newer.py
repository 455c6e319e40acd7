"""Lists of words that a newer service may have added to.

Who writes such a word is held to the list; who reads it from a service that may be newer takes it as it is.
"""

from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationError, ValidationInfo, ValidatorFunctionWrapHandler
from pydantic_core import CoreSchema, core_schema

NEWER = {"service": "may be newer"}
"""The validation context of a reader."""


class MayGrow:
    """In an Annotated: validated with the context NEWER, a word that is not on the list stays a str.

    Without that context, and in JSON Schema, the list is closed.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_wrap_validator_function(
            _read,
            handler(source),
            # The list's own serializer would warn of the word.
            serialization=core_schema.plain_serializer_function_ser_schema(lambda word: word),
        )


def _read(word: Any, listed: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    try:
        return listed(word)
    except ValidationError:
        if info.context is NEWER and isinstance(word, str):
            return word
        raise
