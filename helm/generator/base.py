"""The base class of the chart's values, and the types that they share."""

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

Quantity = str | int | float
"""A Kubernetes quantity, for example `500m` or `16Gi`."""
Labels = dict[str, str]
"""Labels or annotations."""
Object = dict[str, Any]
"""Any Kubernetes object, passed through as given."""


class Values(BaseModel):
    """Base class of all values: keys are in camel case, unknown ones are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, alias_generator=to_camel, populate_by_name=True
    )
