"""The terminal that commands write to."""

from serve.cli.console import console, error_console, print_error, spinner


def test_an_error_is_printed_as_it_is() -> None:
    with error_console.capture() as printed:
        print_error("args[0] is [red]wrong[/red]")
    assert printed.get().strip() == "args[0] is [red]wrong[/red]"


def test_a_table_in_a_log_is_not_cut_at_80_columns() -> None:
    with console.capture() as printed:
        console.print("x" * 110)
    assert printed.get() == "x" * 110 + "\n"


def test_a_spinner_leaves_nothing_behind() -> None:
    with console.capture() as printed, spinner() as progress:
        progress.add_task("starting the models")
    assert "starting" not in printed.get()
