"""The terminal that commands write to."""

import sys

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

console = Console(width=None if sys.stdout.isatty() else 120)  # tables in a log are not cut at 80 columns

error_console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)


def print_error(text: str) -> None:
    """Print an error message as it is, without markup."""
    console.print(text, style="red", highlight=False, markup=False)


def spinner() -> Progress:
    """Return a progress display for work whose length is unknown."""
    return Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True)
