#!/usr/bin/env bash
# From a video of a person to that person gesturing to another speech: make_and_render.sh VIDEO SPEECH FOLDER
set -euo pipefail
video=$1 speech=$2 folder=$3
mkdir -p "$folder"

# once for a person; FOLDER/report shows what was found
tango-rt character build "$video" -o "$folder/person.tango" --report "$folder/report"

# as often as you like; the plot shows which second of the video is shown when
tango-rt render "$folder/person.tango" "$speech" -o "$folder/speech.mp4" --plot "$folder/path.png"

# another performance of the same speech
tango-rt render "$folder/person.tango" "$speech" -o "$folder/speech-again.mp4" --seed 7
