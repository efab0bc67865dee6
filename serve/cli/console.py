"""The terminal that commands write to."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

# Tables in a log are not cut at 80 columns.
console = Console(width=None if sys.stdout.isatty() else 120)

error_console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)


def print_error(text: str) -> None:
    """Print an error message to standard error as it is, without markup."""
    print_note(text, style="red")


def print_line(text: str) -> None:
    """Print a line as it is, without markup."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_note(text: str, *, style: str = "") -> None:
    """Print a line to standard error as it is, where standard output has nothing but results."""
    error_console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def spinner() -> Progress:
    """Return a progress display for work whose length is unknown."""
    return Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True)


@contextmanager
def waiting(text: str) -> Iterator[Callable[[str], None]]:
    """Show what is waited for while the block runs: it calls the function with each new text.

    A terminal shows the current text; elsewhere each text is a line.
    """
    if not console.is_terminal:
        said = [text]
        print_line(text)

        def say(new: str) -> None:
            if new != said[-1]:
                print_line(new)
                said[:] = [new]

        yield say
        return
    with spinner() as progress:
        task = progress.add_task(text)
        yield lambda new: progress.update(task, description=new)
