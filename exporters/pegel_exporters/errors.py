"""What goes wrong: the user's to mend, or Pegel's own failure."""

import os


class UserError(Exception):
    """Something Pegel was given cannot work; the message is the one line that says what and where."""


OUR_FAILURE = 3
"""The exit code of a process of Pegel's that fails by its own mistake."""


def place_of(error: BaseException) -> str:
    """The kind of an error that nobody expected, and the line it came from. Its words may hold a value."""
    found = error.__traceback__
    while found is not None and found.tb_next is not None:
        found = found.tb_next
    name = type(error).__name__
    if found is None:
        return name
    return f"{name} in {os.path.basename(found.tb_frame.f_code.co_filename)}, line {found.tb_lineno}"
