"""What a replica has loaded is not looked through again, and other garbage is collected."""

import gc
import subprocess
import sys
import weakref

from deployments.replica.collector import spare_loaded

PROGRAM = """
import gc
import weakref
from deployments.replica.collector import spare_loaded

class Weight:
    pass

gc.disable()
loop = Weight()
loop.itself = loop
gone = weakref.ref(loop)
del loop
loaded = [Weight() for _ in range(1000)]
spare_loaded()
looked_through = [thing for thing in gc.get_objects() if isinstance(thing, Weight)]
print(gc.get_freeze_count() >= 1000, len(looked_through), gone())
"""


def test_what_is_loaded_is_exempt_and_garbage_is_not_kept_with_it() -> None:
    """In a process of its own, since objects stay exempt."""
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == "True 0 None\n", "the thousand are exempt, and the loop was collected first"


def test_what_comes_later_is_collected() -> None:
    class Loop:
        itself: "Loop"

    spare_loaded()
    try:
        loop = Loop()
        loop.itself = loop
        gone = weakref.ref(loop)
        del loop
        gc.collect()
        assert gone() is None
    finally:
        gc.unfreeze()
