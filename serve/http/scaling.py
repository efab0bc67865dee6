"""How many replicas the ingress needs: one that only waits for news of a job needs none."""

from typing import Any

from ray.serve.config import AutoscalingContext

AT_WORK = "at_work"
"""The name under which a replica of the ingress reports its requests that are not listeners."""


def by_requests_at_work(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Return the number of replicas for the requests that are not listeners, and no state.

    Serve's own policy takes all requests for work, and so would start a replica for each 16 pages
    that show a job. Each replica counts both at one moment: Serve's count of all requests is the
    mean over another time, so while listeners come, those that it has and the report does not
    would look like work. Serve applies the bounds and the delays of ``autoscaling_config`` itself.
    """
    reported = (context.aggregated_metrics or {}).get(AT_WORK)
    if not reported or context.config is None:
        return context.target_num_replicas, {}
    return sum(reported.values()) / context.config.get_target_ongoing_requests(), {}
