"""What every pass configuration shares."""

from pydantic import BaseModel, ConfigDict


class PassConfig(BaseModel):
    """The arguments of one pass. Unknown fields are refused; every default is part of the API."""

    model_config = ConfigDict(extra="forbid", frozen=True)
