"""Interrupt the character in the middle of a sentence, as somebody who starts to talk would.

    python examples/barge_in.py HOST:PORT CHARACTER SPEECH.wav

Needs a server (tango-rt serve --characters packs/) and nothing but the client. The WAV file must be mono, 16 bits.
"""

import asyncio
import sys
import wave

from tango_rt.client import AsyncClient, SessionOptions
from tango_rt.v1.media_pb2 import VideoFrame
from tango_rt.v1.session_pb2 import UtteranceFinished, UtteranceStarted

INTERRUPT_AFTER_FRAMES = 15


async def main(server: str, character: str, wav: str) -> None:
    with wave.open(wav) as speech:
        samples, rate_hz = speech.readframes(speech.getnframes()), speech.getframerate()
    options = SessionOptions(character, sample_rate_hz=rate_hz)
    async with AsyncClient(server) as client, client.stream(options) as session:
        await session.send_audio(samples)  # all at once: what was not performed yet can be dropped
        async for event in session:
            if isinstance(event, UtteranceStarted):
                print(f"speaks from frame {event.frame_index}")
            elif isinstance(event, VideoFrame) and event.utterance_frame == INTERRUPT_AFTER_FRAMES:
                await session.interrupt("rest")
            elif isinstance(event, UtteranceFinished):
                seconds = event.played_samples / rate_hz
                print(f"interrupted after {seconds:.1f} s" if event.interrupted else "spoke to the end")
                await session.finish()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
