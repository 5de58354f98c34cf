"""Names of characters: which ones can be served and when two are the same; and untrusted text made printable."""

import unicodedata

__all__ = ["MAX_NAME_BYTES", "canonical", "shown", "unfit"]

MAX_NAME_BYTES = 249
"""In UTF-8: with .tango appended, the limit of file systems."""

_MAX_SPELT = 4 * MAX_NAME_BYTES  # characters: decomposed, a letter of a name becomes four at most

# invisible but part of words or pictures: joiners of many scripts and emoji, letters of flags
_JOINERS = {"\u200c", "\u200d"} | {chr(code) for code in range(0xE0020, 0xE0080)}
_UNFIT = {
    "Cc": "a control character",
    "Cf": "an invisible character that changes how others are shown",
    "Cs": "bytes that are not UTF-8",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}


def unfit(name: str) -> str | None:
    """What is wrong with the name of a character, as part of a sentence; None if clients can ask for it.

    Letters of every script, their marks, spaces, brackets and emoji are all allowed.
    """
    if not name.strip():
        return "is empty"
    if name != name.strip():
        return "begins or ends with a space"
    if name[0] in ".-":
        return f"begins with {name[0]!r}, like a hidden file or an option"
    n_bytes = len(name.encode("utf-8", "surrogatepass"))
    if n_bytes > MAX_NAME_BYTES:  # first: an untrusted name may have millions
        return f"has {n_bytes} bytes, at most {MAX_NAME_BYTES} are allowed"
    for character in name:
        found = _UNFIT.get(unicodedata.category(character))
        if found is not None and character not in _JOINERS:
            return f"contains {found} ({character!a})"
    return None


def canonical(name: str) -> str:
    """The Unicode NFC form of a name: a letter with an accent is one character, not two.

    Text too long for any name is returned unchanged: normalising takes time quadratic in the number of marks and holds
    the interpreter lock.
    """
    if len(name) > _MAX_SPELT:
        return name
    return unicodedata.normalize("NFC", name)


def shown(text: str) -> str:
    """Text that is safe in terminals, logs and protobuf: control characters, which a terminal obeys, and bytes that
    are not UTF-8 are escaped."""
    if text.isprintable():
        return text
    return "".join(_spelt(letter) if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in text)


def _spelt(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode()
