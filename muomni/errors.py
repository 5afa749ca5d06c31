"""The one exception for faults that a user can mend."""


class UserError(Exception):
    """Bad input from outside: a file, a parameter, an option.

    The message is one line that says what is wrong, where, and what to do. The command and the pipeline entry
    points print it as ``error: ...`` on standard error and exit with code 2, without a traceback.
    """
