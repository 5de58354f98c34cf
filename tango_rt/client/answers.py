"""What a server reports about itself and its characters, checked for plausibility."""

from tango_rt.client.checks import check_durations
from tango_rt.client.errors import broken
from tango_rt.client.route import Route
from tango_rt.v1 import service_pb2

__all__ = ["Pages", "checked_character", "checked_info"]

_MAX_PAGES = 1000
_MAX_BYTES = 64 << 20  # of all characters together
_MAX_CHARACTER_BYTES = 512 << 10  # with the names of 1000 cues
_MAX_INFO_BYTES = 1 << 20
_PAGE = 100


def checked_info(info: service_pb2.ServerInfo, route: Route) -> service_pb2.ServerInfo:
    """Raises ServerError."""
    if info.ByteSize() > _MAX_INFO_BYTES:
        raise broken(route, f"its description has {info.ByteSize()} bytes")
    counts = (info.max_sessions, info.active_sessions, info.default_lookahead_nodes, info.max_message_bytes)
    if min(counts) < 0:
        raise broken(route, f"its description has a count of {min(counts)}")
    durations = (info.max_chunk, info.max_session, info.idle_timeout, info.max_queued_audio)
    if problem := check_durations(durations):
        raise broken(route, problem)
    return info


def checked_character(character: service_pb2.Character, route: Route) -> service_pb2.Character:
    """Raises ServerError."""
    if character.ByteSize() > _MAX_CHARACTER_BYTES:
        raise broken(route, f"the description of a character has {character.ByteSize()} bytes")
    sizes = (character.width, character.height, character.n_frames, character.n_nodes, character.n_nodes_kept)
    if min(*sizes, character.n_clips, character.size_bytes) < 0:
        raise broken(route, "a character has a size below 0")
    return character


class Pages:
    """Collects all pages of characters."""

    def __init__(self, route: Route) -> None:
        self.characters: list[service_pb2.Character] = []
        self._route = route
        self._tokens: set[str] = set()
        self._n_bytes = 0

    def request(self) -> service_pb2.ListCharactersRequest:
        return self._next("")

    def take(self, page: service_pb2.ListCharactersResponse) -> service_pb2.ListCharactersRequest | None:
        """The request for the next page; None: that was all. Raises ServerError for pages that do not end."""
        self._n_bytes += page.ByteSize()
        if len(page.characters) > _PAGE:
            raise broken(self._route, f"{len(page.characters)} characters on a page of at most {_PAGE}")
        if self._n_bytes > _MAX_BYTES or len(self._tokens) >= _MAX_PAGES:
            raise broken(self._route, "its list of characters does not end")
        self.characters += (checked_character(character, self._route) for character in page.characters)
        token = page.next_page_token
        if not token:
            return None
        if token in self._tokens or not page.characters:
            raise broken(self._route, "its list of characters repeats a page, or has an empty one")
        self._tokens.add(token)
        return self._next(token)

    def _next(self, token: str) -> service_pb2.ListCharactersRequest:
        return service_pb2.ListCharactersRequest(page_size=_PAGE, page_token=token)
