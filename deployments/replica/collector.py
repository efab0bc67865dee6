"""The garbage collector of a replica's process."""

import gc


def spare_loaded() -> None:
    """Exempt all objects that there are now from garbage collection.

    A loaded model is hundreds of thousands of objects that stay. Looking through all of them takes
    a quarter of a second, which some request would wait for.
    """
    gc.collect()
    gc.freeze()
