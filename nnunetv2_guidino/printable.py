"""Names and other text of somebody else's, as a line that a terminal can show."""


def printable(text: str) -> str:
    """The text with what would break a line or drive a terminal written as escapes."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
