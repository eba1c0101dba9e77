"""The one error for whatever the user can put right."""


class GuidinoError(Exception):
    """Something the user can put right. The message names the file or the key, what was expected and what to do.

    The command line prints it as one line without a traceback.
    """
