"""Frames as arrays, live: sound in pieces of 20 ms, four pictures every 133 ms, no server and no file.

Needs a character and a WAV file of 16-bit samples, 8 to 48 kHz:

    python examples/frames.py anna.tango speech.wav

Show the pictures instead of counting them, and pace the loop by your clock, and you have a live avatar.
"""

import sys
import wave

import numpy as np

import tango_rt

NODE_S = 4 / 30


def main(pack: str, speech: str) -> None:
    with wave.open(speech, "rb") as file:
        rate = file.getframerate()
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())[:, 0]
    character = tango_rt.Character.open(pack)
    n_spoken = n_rest = n_drawn = 0
    with character.stream(rate) as live:
        sent = 0
        for step in range(round(len(sound) / rate / NODE_S) + 8):
            while sent < min(len(sound), (step + 1) * NODE_S * rate):
                live.push(sound[sent : sent + rate // 50])
                sent += rate // 50
                if sent >= len(sound):
                    live.end_of_utterance()
            for frame in live.next():
                n_spoken += frame.speaking
                n_rest += not frame.speaking
                n_drawn += frame.drawn
    print(f"{n_spoken} frames of speech, {n_rest} at rest, {n_drawn} of them drawn")


if __name__ == "__main__":
    main(*sys.argv[1:])
