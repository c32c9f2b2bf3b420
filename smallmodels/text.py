"""Text of others on a terminal: nothing that moves the cursor, nothing longer than a line. Standard library only."""


def printable(text: str) -> str:
    """One line in which control characters, such as escape sequences, and line breaks are blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def inert_cell(text: str) -> str:
    """Text for a CSV file: what a spreadsheet would run as a formula gets an apostrophe in front."""
    starts = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four are their full-width forms
    return f"'{text}" if text[:1] in ("\t", "\r", "\n") or text.lstrip().startswith(starts) else text


def shorten(text: str, width: int) -> str:
    """A printable line of at most so many characters, with an ellipsis where something was cut."""
    line = printable(text)
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"
