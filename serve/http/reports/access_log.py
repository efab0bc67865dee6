"""The lines that Serve's proxy and replicas log about each request, without those of probes."""

import logging
import re

from serve.route_table import Row

PROBES = (Row.HEALTHZ.path, Row.READYZ.path)
"""The paths that probes ask every few seconds; Serve itself logs none of its own `/-/healthz`."""

# As Serve writes it, with the caller's address before it where that is switched on.
_PROBE_THAT_SUCCEEDED = re.compile(rf"(\S+ )?(GET|HEAD) \S*({'|'.join(PROBES)}) 200 [\d.]+ms")


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """Return whether a record is to be logged: not if it is of a probe that succeeded."""
    is_access = getattr(record, "serve_access_log", False)
    return not (is_access and _PROBE_THAT_SUCCEEDED.fullmatch(record.getMessage()))


def leave_out_probes() -> None:
    """Log no probe that succeeds, from now on in this process: they would bury everything else."""
    logging.getLogger("ray.serve").addFilter(is_worth_a_line)
