"""The one kind of failure that is the user's to mend."""


class UserError(Exception):
    """Something Pegel was given cannot work; the message is the one line that says what and where."""
