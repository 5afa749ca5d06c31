"""The one exception for faults that a user can mend, and how its message is shown."""


class UserError(Exception):
    """Bad input from outside: a file, a parameter, an option.

    The message is one line that says what is wrong, where, and what to do. The command and the pipeline entry
    points print it as ``error: ...`` on standard error and exit with code 2, without a traceback.
    """


def one_line(text: object) -> str:
    """A message as one line that a terminal takes as text, whatever names from files are in it."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
