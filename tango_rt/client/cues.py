"""Asking a character for a cue."""

import math

from tango_rt.client.errors import InputError
from tango_rt.v1 import session_pb2

__all__ = ["MAX_WITHIN_S", "cue_request"]

MAX_WITHIN_S = 10
_MAX_SAMPLE = 1 << 62


def cue_request(
    name: str, at_sample: int | None, utterance: str, within_s: float | None
) -> session_pb2.StreamGesturesRequest:
    """Raises InputError for times out of range, and for a name that is not valid text."""
    if at_sample is not None and not 0 <= at_sample <= _MAX_SAMPLE:
        raise InputError(f"a cue at sample {at_sample}: wanted 0 or more")
    if at_sample is None and utterance:
        raise InputError("a cue that comes as soon as possible belongs to no utterance: give a sample, or no utterance")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the name of a cue {name!a} is not valid UTF-8") from error
    cue = session_pb2.Cue(name=name, utterance_id=utterance)
    if at_sample is None:
        cue.soon = True
    else:
        cue.at_sample = at_sample
    if within_s is not None:
        if not (math.isfinite(within_s) and 0 <= within_s <= MAX_WITHIN_S):
            raise InputError(f"a cue within {within_s} s: wanted 0 to {MAX_WITHIN_S} s")
        cue.within.FromNanoseconds(round(within_s * 1e9))
    return session_pb2.StreamGesturesRequest(cue=cue)
