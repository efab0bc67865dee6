"""What the operator changes in a RayService that it stores again.

It reads the object into its own types and writes it back: fields that are empty there vanish, a
struct without `omitempty` appears, quantities become strings. Whatever else is rendered shows up in
every `kubectl diff`, and Argo CD never comes to rest.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chart.rendering import VALUES, Json, one, render

SERVICES = [file for file in VALUES if "pod" not in file.stem and "single" not in file.stem]


def _quantities(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _quantities(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in ("requests", "limits"):
                yield from item.values()
            else:
                yield from _quantities(item)


@pytest.mark.parametrize("file", SERVICES, ids=lambda path: path.stem)
def test_only_what_the_operator_keeps_is_rendered(file: Path) -> None:
    spec = one(render(None, file), "RayService")["spec"]
    assert spec.get("excludeHeadPodFromServeSvc") is not False, "the operator removes false"
    for group in spec["rayClusterConfig"]["workerGroupSpecs"]:
        assert group["scaleStrategy"] == {}, "the operator adds it"
    quantities = list(_quantities(spec))
    assert len(quantities) > 8
    for quantity in quantities:
        assert isinstance(quantity, str)
        assert re.fullmatch(r"[1-9][0-9]*(m|Mi|Gi)?", quantity), f"the operator writes {quantity} in another form"


@pytest.mark.parametrize(("serve", "expected"), [(True, None), (False, True)])
def test_a_head_without_requests_is_excluded(serve: bool, expected: bool | None) -> None:
    spec: Json = one(render({"head": {"serve": serve}}), "RayService")["spec"]
    assert spec.get("excludeHeadPodFromServeSvc") is expected
