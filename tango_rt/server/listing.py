"""What the server reports: its characters, and itself."""

import platform
from dataclasses import asdict

from engine.cores import usable_cores
from engine.inference.backends import BACKENDS
from engine.inference.networks import Networks
from engine.names import canonical
from tango_rt import __version__
from tango_rt.pipeline.store import CharacterStore
from tango_rt.pipeline.summary import CharacterSummary, summarize
from tango_rt.server.config import ServerConfig
from tango_rt.server.messages import duration
from tango_rt.server.opening import find_character
from tango_rt.server.status import bad_field
from tango_rt.v1 import media_pb2, service_pb2

__all__ = ["get_character", "list_characters", "server_info"]

DEFAULT_PAGE = 50
MAX_PAGE = 1000
MAX_PAGE_BYTES = 3 << 20  # one with many names of cues ends early: clients take messages of 4 MiB


def list_characters(
    store: CharacterStore, request: service_pb2.ListCharactersRequest
) -> service_pb2.ListCharactersResponse:
    """A page of the characters that were usable at the last scan, ordered by id. Raises Refusal."""
    if request.page_size < 0:
        raise bad_field("page_size", f"a page of {request.page_size}: wanted 1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}")
    size = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
    # the token is the last id of the page before: added or removed characters shift nothing
    found = [one for one in store.listed.values() if one.id > request.page_token]
    response = service_pb2.ListCharactersResponse()
    n_bytes = 0
    for one in found[:size]:
        described = _described(one)
        n_bytes += described.ByteSize()
        if response.characters and n_bytes > MAX_PAGE_BYTES:
            break
        response.characters.append(described)
    if len(response.characters) < len(found):
        response.next_page_token = response.characters[-1].id
    return response


def get_character(store: CharacterStore, request: service_pb2.GetCharacterRequest) -> service_pb2.Character:
    """Raises Refusal."""
    if not request.id:
        raise bad_field("id", "no character given: wanted an id from ListCharacters")
    known = store.listed.get(request.id) or store.listed.get(canonical(request.id))
    return _described(known or summarize(find_character(store, request.id)))


def server_info(config: ServerConfig, active_sessions: int, networks: Networks | None) -> service_pb2.ServerInfo:
    info = service_pb2.ServerInfo(
        version=__version__,
        backends=[name for name, backend in BACKENDS.items() if backend.why_not_runnable() is None],
        max_sessions=config.max_sessions,
        active_sessions=active_sessions,
        default_lookahead_nodes=config.lookahead_nodes,
        max_message_bytes=config.max_message_bytes,
        max_chunk=duration(config.max_chunk_s),
        max_session=duration(config.max_session_s),
        idle_timeout=duration(config.idle_timeout_s),
        max_queued_audio=duration(config.max_queued_audio_s),
        video_encodings=[value for value in media_pb2.VideoEncoding.values() if value],
        machine=f"{platform.system()} {platform.machine()}, {usable_cores()} cores",
    )
    if networks is not None:
        info.bundles.add(
            name=networks.bundle.name,
            sha256=networks.bundle.sha256,
            backend=networks.target.backend,
            precision=networks.target.precision,
            profile=networks.target.profile,
            engine_key=networks.engine_key,
            report_sha256=networks.report_sha256,
        )
    return info


def _described(one: CharacterSummary) -> service_pb2.Character:
    return service_pb2.Character(**asdict(one))
