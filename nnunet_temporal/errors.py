"""The one exception that means: the user's input is at fault, and the message says how to mend it."""


class InputError(ValueError):
    """Bad input from the user.

    The message names the file (or argument), the rule, what was found and what to do. The command line prints it
    without a traceback and exits with code 2.
    """
