# %% [markdown]
# # A character in a notebook
#
# Needs a character and a speech: `python examples/notebook.py anna.tango speech.wav pictures/`. In cells, for editors
# that run `# %%` scripts; without one it runs from top to bottom.

# %%
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import tango_rt

pack, speech, folder = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
folder.mkdir(parents=True, exist_ok=True)
character = tango_rt.Character.open(pack)
print(character)

# %% [markdown]
# ## A speech, rendered
# The plot shows which moment of the reference is shown when; steps are cuts.

# %%
result = character.render(speech, folder / "out.mp4", plot=folder / "path.png", on_progress=print)
print(f"{result.duration_s:.1f} s, {result.n_cuts} cuts, {result.realtime_factor:.2f} of real time")

# %% [markdown]
# ## The same as arrays
# A frame a second, and those around the first cut.

# %%
frames = list(character.frames(speech))
every_second = frames[::30]
drawn = [frame for frame in frames if frame.drawn][:8]

figure, axes = plt.subplots(2, 8, figsize=(16, 5), squeeze=False)
for row, chosen in zip(axes, (every_second, drawn), strict=True):
    for axis in row:
        axis.set_axis_off()
    for axis, frame in zip(row, chosen, strict=False):
        axis.imshow(frame.picture)
        axis.set_title(f"{frame.time_s:.2f} s, node {frame.node}", fontsize=8)
figure.savefig(folder / "frames.png", dpi=120, bbox_inches="tight")

# %% [markdown]
# ## How far the picture moves
# Mean difference of neighbouring frames; transitions are shaded.

# %%
change = [np.abs(a.picture.astype(int) - b.picture).mean() for a, b in pairwise(frames)]
figure, axis = plt.subplots(figsize=(12, 3))
axis.plot([frame.time_s for frame in frames[1:]], change)
for frame in frames:
    if frame.drawn:
        axis.axvspan(frame.time_s, frame.time_s + 1 / 30, alpha=0.2, linewidth=0)
axis.set_xlabel("seconds")
axis.set_ylabel("mean change of a pixel")
figure.savefig(folder / "motion.png", dpi=120, bbox_inches="tight")
print(*sorted(file.name for file in folder.iterdir()))
