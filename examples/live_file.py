"""A WAV file into a server as it would be spoken; the H.264 that comes back goes into a file.

    python examples/live_file.py HOST:PORT CHARACTER SPEECH.wav OUT.h264

Needs a server (tango-rt serve --characters packs/) and nothing but the client. The WAV file must be mono, 16 bits.
"""

import sys
import threading
import time
import wave

from tango_rt.client import Client, SessionOptions
from tango_rt.v1.media_pb2 import VideoFrame
from tango_rt.v1.session_pb2 import UtteranceFinished

CHUNK_S = 0.1


def speak(session, speech: wave.Wave_read) -> None:
    """Send the file no faster than it would be spoken, then say that there is no more."""
    due = time.monotonic()
    while chunk := speech.readframes(round(CHUNK_S * speech.getframerate())):
        session.send_audio(chunk)
        due += CHUNK_S
        time.sleep(max(0.0, due - time.monotonic()))
    session.finish()


def main(server: str, character: str, wav: str, output: str) -> None:
    with wave.open(wav) as speech, open(output, "wb") as file, Client(server) as client:
        options = SessionOptions(character, sample_rate_hz=speech.getframerate())
        with client.stream(options) as session:
            accepted = session.accepted
            print(f"{accepted.width} x {accepted.height}, look-ahead {accepted.lookahead_samples / 16:.0f} ms")
            speaker = threading.Thread(target=speak, args=(session, speech))
            speaker.start()
            for event in session:
                if isinstance(event, VideoFrame):
                    file.write(event.data)
                elif isinstance(event, UtteranceFinished):
                    print(f"performed {event.played_frames} frames of the speech")
            speaker.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
