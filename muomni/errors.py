"""The one exception for faults that a user can mend, and how its message is shown."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Bad input from outside: a file, a parameter, an option.

    The message is one line that says what is wrong, where, and what to do. The command and the pipeline entry
    points print it as ``error: ...`` on standard error and exit with code 2, without a traceback.
    """


# What the machine refuses, and what to do. Anything else that the operating system says may be a fault of the code.
REFUSED = {
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "free some space or have your quota raised, and run again",
    errno.EFBIG: "the limit of a file's size is too low here (ulimit -f); raise it and run again",
    errno.EROFS: "choose a place that can be written to, or have it mounted so",
    errno.EACCES: "check the rights of the file and of its folder",
    errno.EPERM: "check the rights of the file and of its folder",
    errno.EMFILE: "too many files are open (ulimit -n); raise the limit and run again",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "a link there leads to itself; remove it",
    errno.EIO: "the disk may be failing; check it and run again",
}


def refused(error: OSError) -> UserError | None:
    """What to tell a user of an error of the operating system; None if it is not about what the machine refuses."""
    if error.errno == errno.ENOENT and error.filename is None and "temporary directory" in str(error.strerror):
        return UserError("no folder for temporary files can be written to; have TMPDIR name one with some space")
    if error.errno not in REFUSED:
        return None
    name = f"{error.filename}: " if error.filename else ""
    return UserError(f"{name}{error.strerror}; {REFUSED[error.errno]}; nothing that was finished is lost")


@contextmanager
def ending_in_one_line() -> Iterator[None]:
    """Have a fault that a user can mend end the program with its line on standard error and exit code 2."""
    try:
        yield
    except (UserError, OSError) as error:
        told = refused(error) if isinstance(error, OSError) else error
        if told is None:
            raise
        print(f"error: {one_line(told)}", file=sys.stderr)
        sys.exit(2)


def one_line(text: object) -> str:
    """A message as one line that a terminal takes as text, whatever names from files are in it."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters; of a longer one its beginning and its end, for paths differ at the end."""
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"
