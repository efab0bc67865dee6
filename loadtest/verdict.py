"""How a program of the load test ends."""

from collections.abc import Callable, Sequence

import typer

from serve.cli.console import print_error
from serve.cli.ray_dashboard import DashboardUnavailable
from serve.client import CallFailed


def exit_code(measure: Callable[[], Sequence[str]]) -> int:
    """Return 0 if ``measure`` missed no bar; print the bars that it missed, or why it failed."""
    try:
        misses = measure()
    except (CallFailed, DashboardUnavailable) as e:
        print_error(str(e))
        return 1
    except typer.Exit as e:  # it was said why
        return e.exit_code
    for miss in misses:
        print_error(f"MISSED: {miss}")
    return 1 if misses else 0
