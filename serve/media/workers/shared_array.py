"""Arrays that pass from one process to another without a copy, as unnamed files in memory.

Such a file has no name that could stay behind: the kernel frees it with its last descriptor and its
last mapping, whichever process is killed.
"""

import fcntl
import math
import mmap
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serve.media.spool import write_all

Bytes = npt.NDArray[np.uint8]


def write_array(array: Bytes) -> int:
    """Copy ``array`` into a new file in memory and return its descriptor.

    The caller closes the descriptor.
    """
    fd = os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        # Writing is faster than copying into a mapping, which takes a page fault for each page.
        write_all(fd, np.ascontiguousarray(array).data)
    except BaseException:
        os.close(fd)
        raise
    return fd


def map_array(fd: int, shape: Sequence[int]) -> Bytes:
    """Return the array in the file ``fd``, uint8 of ``shape``. The descriptor is not needed after.

    The file is sealed first, since access to a mapping that the other process has cut short would
    end this one. Raises ``ValueError`` if the file is too small for ``shape``.
    """
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    if min(shape) < 1 or os.fstat(fd).st_size != math.prod(shape):
        raise ValueError(f"a file of {os.fstat(fd).st_size} bytes does not hold an array of {tuple(shape)}")
    return np.frombuffer(mmap.mmap(fd, math.prod(shape)), np.uint8).reshape(tuple(shape))
