"""Opens the session for a checked plan: the character, its performer, and what draws and encodes its pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import grpc

from engine.blending.blender import open_blender
from engine.character.info import PackInfo
from engine.character.perform import PerformOptions
from engine.character.retrieval import RetrievalOptions
from engine.errors import ArtifactError, BackendError, InputError
from engine.inference.networks import Networks
from engine.timebase import SAMPLE_RATE
from tango_rt.pipeline.ahead import TransitionPool
from tango_rt.pipeline.character import Character
from tango_rt.pipeline.live import LiveOptions, LivePerformer
from tango_rt.pipeline.pictures import PictureSource
from tango_rt.pipeline.stages import PictureStage, StageChain
from tango_rt.pipeline.store import CharacterStore, UnknownCharacter
from tango_rt.server.checks import SessionPlan
from tango_rt.server.config import ServerConfig
from tango_rt.server.hearing import MIN_JITTER_S
from tango_rt.server.messages import accepted, duration
from tango_rt.server.metrics import Metrics
from tango_rt.server.session import Session
from tango_rt.server.speech import SpeechQueue
from tango_rt.server.status import Refusal, bad_field
from tango_rt.sound.resample import Resampler
from tango_rt.v1 import session_pb2
from tango_rt.video.codecs import FrameCoder
from tango_rt.video.shared_pictures import SharedPictures

__all__ = ["NewSession", "Opener", "find_character"]

_MORE_THAN_LOOKAHEAD_S = 1.0


@dataclass(frozen=True)
class NewSession:
    """A new session, and what its client is told."""

    session: Session
    accepted: session_pb2.Accepted
    max_queued: int  # samples accepted ahead of the performance


@dataclass(frozen=True)
class Opener:
    """Opens the sessions of one server; from any thread, because a character not used recently takes seconds."""

    server: ServerConfig
    store: CharacterStore
    pool: TransitionPool | None  # None: transitions are drawn on the spot
    metrics: Metrics
    networks: Networks | None = None  # of all sessions
    pictures: SharedPictures | None = None  # of all sessions
    stages: Callable[[PackInfo], Sequence[PictureStage]] = lambda _: ()  # for a new session
    paced_budget_s: float = 0.01  # of listening, a step in real time

    def open(self, plan: SessionPlan, session_id: str, max_chunk_s: float) -> NewSession:
        """Raises Refusal for a character or a retrieval that is not available."""
        character = find_character(self.store, plan.character)
        plan = replace(plan, blender=plan.blender or character.blender)
        performer = self._performer(character, plan)
        info = character.pack.info
        lookahead = performer.lookahead_samples + Resampler(plan.rate_hz).lookahead_samples
        if plan.realtime and plan.lookahead_nodes is not None:
            lookahead += round(MIN_JITTER_S * SAMPLE_RATE)
        # a step that waits for more sound than is accepted would never come
        max_queued_s = max(self.server.max_queued_audio_s, lookahead / SAMPLE_RATE + _MORE_THAN_LOOKAHEAD_S)
        stages = StageChain(info, self.stages(info), self.pictures)
        _check_lookahead(stages, performer, plan)
        session = Session(
            plan,
            SpeechQueue(plan, max_chunk_s),
            performer,
            PictureSource(character.pack, open_blender(plan.blender), self.pool),
            stages,
            FrameCoder(plan.encoding, info, self.pictures),
            character.pack["clip_start"],
            self.metrics,
            self.paced_budget_s,
        )
        answer = accepted(
            session_id,
            plan,
            self.server,
            info,
            lookahead_samples=lookahead,
            max_queued_audio=duration(max_queued_s),
            retrieval=performer.retrieval,
            character_sha256=character.sha256,
        )
        return NewSession(session, answer, int(max_queued_s * plan.rate_hz))

    def _performer(self, character: Character, plan: SessionPlan) -> LivePerformer:
        networks = self.networks if plan.retrieval in ("auto", "mini", "full") else None
        performed = PerformOptions(RetrievalOptions(plan.retrieval, networks), seed=plan.seed)
        options = LiveOptions(plan.lookahead_nodes, plan.idle, plan.drawn_only, performed, plan.adaptive)
        try:
            return character.performer(options)
        except (InputError, ArtifactError, BackendError) as error:
            known = ", ".join(character.retrievals) or "none"
            message = (
                f"retrieval {plan.retrieval!r} is not available for character {plan.character!r}: "
                f"its pack holds {known}, and the server may lack the networks for it"
            )
            refusal = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "RETRIEVAL_UNAVAILABLE", message)
            raise refusal from error


def _check_lookahead(stages: StageChain, performer: LivePerformer, plan: SessionPlan) -> None:
    """Raises Refusal if stages need to hear more than the search waits for: they would take the rest for silence."""
    wanted_s, heard_s = stages.lookahead_s or 0.0, performer.lookahead_samples / SAMPLE_RATE
    if plan.lookahead_nodes is not None and wanted_s > heard_s:
        message = f"a look-ahead of {heard_s:.2f} s: the picture stages of this server need {wanted_s:.2f} s"
        raise bad_field("lookahead_nodes", message)


def find_character(store: CharacterStore, name: str) -> Character:
    """Raises Refusal if there is none, or it is unusable; the server's log has the reason."""
    try:
        return store.get(name)
    except UnknownCharacter as error:
        raise Refusal(grpc.StatusCode.NOT_FOUND, "UNKNOWN_CHARACTER", str(error)) from error
    except (InputError, ArtifactError) as error:
        message = f"character {name!r} cannot be used: its pack is damaged or has another version"
        raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, "CHARACTER_UNUSABLE", message) from error
