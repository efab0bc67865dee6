"""The load test: creators, studios and apps, with measures, shapes and thresholds of our own.

To load any service for five minutes with at most eight users, and write a report:

    locust -f loadtest/locustfile.py --host URL --headless --users 8 --run-time 5m \
      --shape spike --size full --report load.html --threshold 'result:wan2.6:p95<=120'

`RYLA_API_KEY` is sent as the key. Several machines share the work by Locust's own `--master` and
`--worker`; measures are collected from all of them.
"""

from typing import Any

from locust import events
from locust.env import Environment

from loadtest.options import add_options
from loadtest.run_events import attach
from loadtest.shape import ChosenShape
from loadtest.users import App, Creator, Studio

__all__ = ["App", "ChosenShape", "Creator", "Studio"]


def _add_options(parser: Any, **_: Any) -> None:
    add_options(parser)


def _attach(environment: Environment, **_: Any) -> None:
    ChosenShape.run = attach(environment)


events.init_command_line_parser.add_listener(_add_options)
events.init.add_listener(_attach)
