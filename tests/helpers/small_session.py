"""What a program does that has the client alone: run by tests, with the wheel on the path and this checkout not.

python tests/helpers/small_session.py HOST:PORT CHARACTER SPEECH.raw      (16 kHz, 16 bits); prints JSON
"""

import asyncio
import hashlib
import json
import sys
from pathlib import Path

from tango_rt.client import AsyncClient, Client, InputError, ServerError, SessionOptions, TangoError
from tango_rt.v1 import media_pb2


def main(target: str, character: str, speech: bytes) -> None:
    options = SessionOptions(character, pacing="fast", audio_echo=True)
    with Client(target) as client:
        with client.stream(options) as session:
            session.send_audio(speech)
            session.finish()
            plain = [event for event in session if isinstance(event, media_pb2.VideoFrame)]
        refusals = [refusal(client, character), unknown(client)]
    streamed = asyncio.run(stream(target, options, speech))
    told = {
        "frames": [hashlib.sha256(frame.data).hexdigest() for frame in plain],
        "same": [frame.data for frame in plain] == [frame.data for frame in streamed],
        "echo": b"".join(frame.audio.data for frame in plain).startswith(speech),
        "refusals": refusals,
    }
    print(json.dumps(told))


async def stream(target: str, options: SessionOptions, speech: bytes) -> list:
    async with AsyncClient(target) as client, client.stream(options) as session:
        await session.send_audio(speech)
        await session.finish()
        return [event async for event in session if isinstance(event, media_pb2.VideoFrame)]


def refusal(client: Client, character: str) -> str:
    try:
        list(client.render_clip(SessionOptions(character), b"odd"))
    except InputError as error:
        return str(error)
    return ""


def unknown(client: Client) -> str:
    try:
        client.character("nobody")
    except ServerError as error:
        return error.reason if isinstance(error, TangoError) else ""
    return ""


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes())
