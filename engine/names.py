"""Names of characters: which can be served, when two of them are the same, and text of strangers that is shown."""

import unicodedata

__all__ = ["MAX_NAME_BYTES", "canonical", "shown", "unfit"]

MAX_NAME_BYTES = 249
"""In UTF-8: with .tango behind it no file system takes more."""

_MAX_SPELT = 4 * MAX_NAME_BYTES  # characters: spelt out, a letter of a name becomes four at the most

# what cannot be seen and yet belongs to a word or a picture: joiners of many scripts and emoji, letters of flags
_JOINERS = {"\u200c", "\u200d"} | {chr(code) for code in range(0xE0020, 0xE0080)}
_UNFIT = {
    "Cc": "a control character",
    "Cf": "an invisible character that changes how others are shown",
    "Cs": "bytes that are no UTF-8",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}


def unfit(name: str) -> str | None:
    """None where clients can ask for a character by this name; else what is wrong with it, as part of a sentence.

    Letters of every script, their marks, blanks, brackets and emoji are all fit.
    """
    if not name.strip():
        return "is empty"
    if name != name.strip():
        return "begins or ends with a blank"
    if name[0] in ".-":
        return f"begins with {name[0]!r}, as what is hidden or an option does"
    n_bytes = len(name.encode("utf-8", "surrogatepass"))
    if n_bytes > MAX_NAME_BYTES:  # first: a stranger's name may have millions
        return f"has {n_bytes} bytes, at most {MAX_NAME_BYTES} are possible"
    for character in name:
        found = _UNFIT.get(unicodedata.category(character))
        if found is not None and character not in _JOINERS:
            return f"holds {found} ({character!a})"
    return None


def canonical(name: str) -> str:
    """One form for all spellings of a name, Unicode's NFC: a letter with an accent is one character there, not two.

    What is too long for any name stays as it is: marks are put in order in a time that grows with their square, and
    nothing else in the process runs meanwhile.
    """
    if len(name) > _MAX_SPELT:
        return name
    return unicodedata.normalize("NFC", name)


def shown(text: str) -> str:
    """Text that terminals, logs and protobuf take: control characters, which a terminal obeys, and bytes that are no
    UTF-8 are spelt out."""
    if text.isprintable():
        return text
    return "".join(_spelt(letter) if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in text)


def _spelt(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode()
