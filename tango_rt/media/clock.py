"""One clock for sound and picture of a file, derived from the time stamps of its packets without decoding.

The rules, if there are both tracks:

- A gap in one track stays a gap while the other track goes on, however long it is.
- A gap in both stays one up to MAX_JUMP_S. A longer one is a broken clock and is closed, in both tracks.
- A clock that starts over (chained Ogg, joined TS, WebM or FLV, an interrupted stream) begins a new piece.
  Pieces follow each other: the first sample or picture of one comes where the last of the one before ends.
- A clock that breaks in one track alone, while the other goes on, is bridged in that track: it follows its own end.

A lone track has nothing to stay in sync with. Its reader follows the stamps of the frames themselves.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from tango_rt.media.container import MAX_JUMP_S, Packets, audio_stream, open_media, video_stream

__all__ = ["RESTART_S", "Clock", "read_clock"]

RESTART_S = 0.1
"""Stamps that go back by more than this have started over; by less, they are only inaccurate."""

# Pictures are not stored in display order; only a key picture is later than all before it.
_REORDERED_S = 1.0
# Maximum distance of the tracks in a file: one that goes on for longer takes no part in the other's jump.
_INTERLEAVED_S = 2.0
# A packet that comes later than this may already belong to the next piece.
_GAP_S = 1.0
# The duration of an mp4 packet includes any gap after it: if there is another track, longer ones are ignored.
_LONGEST_S = 0.25


@dataclass(frozen=True)
class Clock:
    """What to add to the stamps of each track: (number of the first packet that it applies to, seconds), in order."""

    lone: bool
    """The file has no sound or no picture."""
    shifts: dict[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    picture_s: float | None = None
    """Seconds from the first picture to the end of the last, if they are stamped."""
    warnings: tuple[str, ...] = ()


def read_clock(path: Path) -> Clock:
    """Read the clock of a file in one pass over its packets. Raises InputError as open_media does."""
    status = path.stat() if path.is_file() else None
    return _read(path, status and (status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=16)  # a build reads the same video several times
def _read(path: Path, _: object) -> Clock:
    with open_media(path) as container:
        if video_stream(container) is None:
            return Clock(lone=True)
        lone = audio_stream(container) is None
        pieces = _Pieces(float("inf") if lone else _LONGEST_S)
        packets = Packets(path, container, ("audio", "video"))
        for packet in packets:
            if packet.is_discard:  # mp4 has packets that are only decoded, for those after them
                pieces.leave_out(packet.stream.type)
            elif packet.size:
                stamp = packet.dts if packet.pts is None else packet.pts
                base = float(packet.time_base)
                pieces.take(
                    packet.stream.type,
                    None if stamp is None else stamp * base,
                    (packet.duration or 0) * base,
                    packet.is_keyframe or packet.stream.type == "audio",
                    packets.position,
                )
    return pieces.clock(lone)


@dataclass
class _Piece:
    """A stretch of the file with one clock; times in seconds as stamped."""

    position: int
    opener: str
    first_s: float
    former: int = 0
    """Previous piece of the track that opened this one, and where the track ended there."""
    former_end_s: float = 0.0
    adjacent: int = 0
    """Piece of the other track at that time, and how far it had come; infinity: it had not begun."""
    adjacent_end_s: float = float("inf")
    starts: dict[str, float] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)
    same_as: int | None = None
    bridged: bool = False

    def admits(self, kind: str, time_s: float) -> bool:
        """Whether a packet of the other track may belong to this piece."""
        free = kind not in self.starts and self.same_as is None and not self.bridged
        return free and self.distance_s(time_s) <= MAX_JUMP_S

    def distance_s(self, time_s: float) -> float:
        return max(min(self.starts.values()) - time_s, time_s - max(self.ends.values()), 0.0)


@dataclass
class _Track:
    """How far a track has come, in seconds as stamped in its piece."""

    piece: int = -1
    latest_s: float = 0.0
    end_s: float = 0.0
    period_s: float = 0.0
    n_packets: int = 0
    changes: list[tuple[int, int]] = field(default_factory=list)
    """(number of a packet, its piece)"""


class _Pieces:
    """Finds the pieces from the packets in file order."""

    def __init__(self, longest_s: float) -> None:
        """longest_s: longer packet durations are ignored."""
        self._longest_s = longest_s
        self._pieces: list[_Piece] = []
        self._tracks = {"audio": _Track(), "video": _Track()}

    def take(self, kind: str, time_s: float | None, duration_s: float, key: bool, position: int) -> None:
        track = self._tracks[kind]
        if not 0 < duration_s <= self._longest_s:
            duration_s = track.period_s
        if time_s is None:
            track.end_s += duration_s
        else:
            piece = self._piece_of(kind, time_s, key, position)
            if piece != track.piece:
                track.changes.append((track.n_packets, piece))
                track.piece, track.latest_s, track.end_s = piece, time_s, time_s
            elif 0 < time_s - track.latest_s <= _GAP_S:
                track.period_s = time_s - track.latest_s
            track.latest_s = max(track.latest_s, time_s)
            track.end_s = max(track.end_s, time_s + duration_s)
            self._note(kind, time_s)
        track.n_packets += 1

    def leave_out(self, kind: str) -> None:
        """A packet that is not shown."""
        self._tracks[kind].n_packets += 1

    def _piece_of(self, kind: str, time_s: float, key: bool, position: int) -> int:
        track = self._tracks[kind]
        if track.piece < 0:
            known = self._newer(kind, time_s, position)
            return self._open(kind, time_s, position) if known is None else known
        back = time_s < track.latest_s - (RESTART_S if key else _REORDERED_S)
        gap_s = time_s - track.end_s
        if not back and gap_s <= _GAP_S:
            return track.piece
        newer = self._newer(kind, time_s, position)
        if newer is not None and (back or self._pieces[newer].distance_s(time_s) < gap_s):
            return newer
        if back or (gap_s > MAX_JUMP_S and self._pieces[track.piece].distance_s(time_s) > MAX_JUMP_S):
            return self._open(kind, time_s, position)
        return track.piece

    def _newer(self, kind: str, time_s: float, position: int) -> int | None:
        """The piece, already begun by the other track, to which a packet belongs by its time and place."""
        fitting = [
            number
            for number in range(self._tracks[kind].piece + 1, len(self._pieces))
            if self._pieces[number].admits(kind, time_s)
        ]
        begun = [number for number in fitting if self._pieces[number].position <= position]
        return begun[-1] if begun else fitting[0] if fitting else None

    def _open(self, kind: str, time_s: float, position: int) -> int:
        track, other = self._tracks[kind], self._tracks[_other(kind)]
        piece = _Piece(position, kind, time_s, max(track.piece, 0), track.end_s)
        if other.piece >= 0:
            piece.adjacent, piece.adjacent_end_s = other.piece, other.end_s
        if track.piece < 0:
            piece.former, piece.former_end_s = piece.adjacent, other.end_s
        self._pieces.append(piece)
        return len(self._pieces) - 1

    def _note(self, kind: str, time_s: float) -> None:
        track, other = self._tracks[kind], self._tracks[_other(kind)]
        piece = self._pieces[track.piece]
        piece.starts[kind] = min(time_s, piece.starts.get(kind, time_s))
        piece.ends[kind] = max(track.end_s, piece.ends.get(kind, track.end_s))
        if other.piece < 0:
            return
        ahead = self._pieces[other.piece]
        undecided = ahead.opener != kind and kind not in ahead.starts and not ahead.bridged
        if undecided and ahead.adjacent == track.piece and track.end_s - ahead.adjacent_end_s > _INTERLEAVED_S:
            self._bridge(ahead, other, track)

    def _bridge(self, ahead: _Piece, jumped: _Track, steady: _Track) -> None:
        """The other track took no part in a jump. A small step back is kept as stamped, any other is bridged."""
        if abs(ahead.first_s - ahead.adjacent_end_s) <= _REORDERED_S:
            ahead.same_as = jumped.piece = steady.piece
        else:
            ahead.bridged = True

    def clock(self, lone: bool) -> Clock:
        offsets, closed = self._offsets()
        shown = [
            (p.starts["video"] + o, p.ends["video"] + o)
            for p, o in zip(self._pieces, offsets, strict=True)
            if "video" in p.ends
        ]
        picture_s = max(end for _, end in shown) - shown[0][0] if shown else None
        if lone:
            return Clock(True, picture_s=picture_s)
        shifts = {
            kind: tuple((number, offsets[piece]) for number, piece in track.changes)
            for kind, track in self._tracks.items()
        }
        warnings = []
        if closed:
            warnings.append(f"gaps of {sum(closed):.0f} s in total, in both sound and picture, were closed")
        if n := sum(piece.bridged for piece in self._pieces):
            warnings.append(f"the clock of one track jumps while the other goes on (times: {n}): it was bridged")
        return Clock(False, shifts, picture_s, tuple(warnings))

    def _offsets(self) -> tuple[list[float], list[float]]:
        """What to add to the stamps of each piece (0 for the first), and the gaps that this closes; in seconds."""
        offsets: list[float] = []
        closed = []
        end_s = float("-inf")
        for piece in self._pieces:
            if not offsets:
                offset = 0.0
            elif piece.same_as is not None:
                offset = offsets[piece.same_as]
            elif piece.bridged:
                offset = offsets[piece.former] + piece.former_end_s - piece.first_s
            else:
                offset = end_s - min(piece.starts.values())
                closed.append(offsets[piece.former] - offset)
            offsets.append(offset)
            end_s = max(end_s, offset + max(piece.ends.values()))
        return offsets, [gap for gap in closed if gap > MAX_JUMP_S]


def _other(kind: str) -> str:
    return "video" if kind == "audio" else "audio"
