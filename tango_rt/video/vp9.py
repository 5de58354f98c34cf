"""Reads the size of every picture of a VP9 stream from its header: it may change at any picture, not only at keys.

VP9 Bitstream and Decoding Process Specification 0.7: uncompressed header (6.2, 7.2) and superframes (annex B).
"""

__all__ = ["Vp9Sizes"]

_Size = tuple[int, int]
_N_SLOTS = 8
_SRGB = 7


class Vp9Sizes:
    """Follows the packets of one stream in order."""

    def __init__(self) -> None:
        self._slots: list[_Size | None] = [None] * _N_SLOTS

    def size(self, packet: bytes) -> _Size | None:
        """Width and height of the picture shown by a packet; None if it shows none or is damaged."""
        shown = None
        for frame in _frames(packet):
            try:
                size, is_shown = self._frame(_Bits(frame))
            except (EOFError, ValueError):
                continue
            shown = size if is_shown else shown
        return shown

    def _frame(self, bits: "_Bits") -> tuple[_Size | None, bool]:
        if bits.read(2) != 2:
            raise ValueError("not a VP9 frame")
        profile = bits.read(1) | bits.read(1) << 1
        bits.read(profile == 3)
        if bits.read(1):  # an older picture is shown again
            return self._slots[bits.read(3)], True
        is_inter, is_shown, resilient = bits.read(1), bool(bits.read(1)), bits.read(1)
        if not is_inter:
            bits.read(24)
            _skip_colours(bits, profile)
            size: _Size | None = _size(bits)
            self._slots = [size] * _N_SLOTS
            return size, is_shown
        intra_only = 0 if is_shown else bits.read(1)
        bits.read(0 if resilient else 2)
        if intra_only:
            bits.read(24)
            if profile > 0:
                _skip_colours(bits, profile)
            refreshed = bits.read(8)
            size = _size(bits)
        else:
            refreshed = bits.read(8)
            size = self._size_with_references(bits)
        self._slots = [size if refreshed >> slot & 1 else old for slot, old in enumerate(self._slots)]
        return size, is_shown

    def _size_with_references(self, bits: "_Bits") -> _Size | None:
        references = [bits.read(4) >> 1 for _ in range(3)]
        for slot in references:
            if bits.read(1):
                return self._slots[slot]
        return _size(bits)


class _Bits:
    """Reads the first bytes of a frame, most significant bit first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data[:32])
        self._left = 8 * len(data[:32])

    def read(self, n_bits: int) -> int:
        if n_bits > self._left:
            raise EOFError
        self._left -= n_bits
        return self._value >> self._left & (1 << n_bits) - 1


def _size(bits: _Bits) -> _Size:
    width = bits.read(16) + 1
    return width, bits.read(16) + 1


def _skip_colours(bits: _Bits, profile: int) -> None:
    bits.read(profile >= 2)
    if bits.read(3) != _SRGB:
        bits.read(1)
        bits.read(3 * (profile in (1, 3)))
    else:
        bits.read(profile in (1, 3))


def _frames(packet: bytes) -> list[bytes]:
    """The frames of a superframe; else the packet itself."""
    marker = packet[-1] if packet else 0
    n_frames, n_bytes = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index = packet[-(2 + n_frames * n_bytes) :]
    if marker & 0xE0 != 0xC0 or len(index) != 2 + n_frames * n_bytes or index[0] != marker:
        return [packet]
    frames, at = [], 0
    for n in range(n_frames):
        length = int.from_bytes(index[1 + n * n_bytes : 1 + (n + 1) * n_bytes], "little")
        frames.append(packet[at : at + length])
        at += length
    return frames
