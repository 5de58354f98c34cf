"""Makes untrusted text safe to print in a terminal."""

__all__ = ["printable"]

_MAX_CHARACTERS = 500


def printable(text: str, most: int = _MAX_CHARACTERS) -> str:
    """One line of bounded length without control characters: unprintable ones are escaped."""
    line = " ".join(text[: 2 * most].split())
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
    return shown if len(shown) <= most and len(text) <= 2 * most else f"{shown[:most]}..."
