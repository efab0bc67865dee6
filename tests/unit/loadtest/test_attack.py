"""The demo that is attacked, and the attacks on it as a whole."""

import threading
from pathlib import Path

import pytest
import yaml

from loadtest.attack import ALL_ATTACKS, HONEST_KEY, Calls, demo_with_keys
from loadtest.attacks import ATTACKS, KEY, Tally
from loadtest.body_attacks import BODY_ATTACKS, greedy_caller
from loadtest.connection_attacks import CONNECTION_ATTACKS
from serve.config import AppConfig
from serve.http.callers.auth import ApiKeys


def test_honest_and_hostile_callers_have_valid_keys_of_their_own(tmp_path: Path) -> None:
    config = yaml.safe_load(demo_with_keys(tmp_path).read_text())
    settings = AppConfig.model_validate(config["applications"][0]["args"])
    assert settings.ingress.api_keys is not None
    keys = ApiKeys(settings.ingress.api_keys)
    assert [keys.name_of(key) for key in (HONEST_KEY, KEY, "another")] == ["honest", "hostile", None]


def test_no_attack_replaces_another() -> None:
    assert len(ALL_ATTACKS) == len(ATTACKS) + len(CONNECTION_ATTACKS) + len(BODY_ATTACKS) == 12


# The bombs are large pictures, which are encoded first.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "bomb" else []) for name in [*ALL_ATTACKS, "greedy caller"]]
)
def test_every_attack_ends_at_once_when_it_is_told_to(name: str) -> None:
    stop = threading.Event()
    stop.set()
    tally = Tally()
    (ALL_ATTACKS | {"greedy caller": greedy_caller})[name](("127.0.0.1", 1), stop, tally)
    assert tally == Tally()


def test_the_95th_percentile_is_that_of_the_calls() -> None:
    assert Calls(seconds=[float(n) for n in range(1, 101)]).p95() == pytest.approx(95.95)
