"""How many replicas the ingress needs: one that only waits for news of a job needs none."""

from typing import Any

from ray.serve.config import AutoscalingContext

LISTENERS = "listeners"
"""The name under which a replica of the ingress reports its listeners to Serve."""


def by_requests_at_work(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Return the number of replicas for the requests that are not listeners, and no state.

    Serve's own policy takes all requests for work, and so would start a replica for each 16 pages
    that show a job. Serve applies the bounds and the delays of ``autoscaling_config`` itself.
    """
    if context.current_num_replicas == 0 or context.config is None:
        return context.target_num_replicas, {}
    listeners = sum((context.aggregated_metrics or {}).get(LISTENERS, {}).values())
    at_work = max(0.0, context.total_num_requests - listeners)
    return at_work / context.config.get_target_ongoing_requests(), {}
