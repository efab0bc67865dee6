"""Files are read to their end in the background."""

import os
import threading
from pathlib import Path

from deployments.video.checkpoints.read_ahead import read_ahead


def test_files_are_read_in_order_until_one_cannot_be_opened(tmp_path: Path) -> None:
    """A writer to a pipe finishes only if a reader takes everything that it writes."""
    pipes = [tmp_path / "first", tmp_path / "second"]
    for pipe in pipes:
        os.mkfifo(pipe)
    read_ahead([*pipes, tmp_path / "missing"])
    for pipe in pipes:
        writer = threading.Thread(target=pipe.write_bytes, args=(bytes(2**20),), daemon=True)
        writer.start()
        writer.join(timeout=10)
        assert not writer.is_alive(), "nobody read the file"
    for thread in threading.enumerate():
        if thread.name == "read-ahead":
            thread.join(timeout=10)
            assert not thread.is_alive(), "the missing file must end the thread"
