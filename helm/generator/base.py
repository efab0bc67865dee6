"""The base class of the chart's values, and the types that they share."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Quantity = str | int | float
"""A Kubernetes quantity, for example `500m` or `16Gi`."""
Labels = dict[str, str]
"""Labels or annotations."""
Object = dict[str, Any]
"""Any Kubernetes object, passed through as given."""


Name = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)]
"""Name of a Kubernetes object, or an empty string for none."""


class Values(BaseModel):
    """Base class of all values: keys are in camel case, unknown ones are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, alias_generator=to_camel, populate_by_name=True
    )
