"""Packs as strangers make them, through all that reads packs: taken, or refused in one line; nothing else ever.

    NUMBA_BOUNDSCHECK=1 python -m tests.helpers.pack_fuzzer --seed 5 --n 3000
    NUMBA_BOUNDSCHECK=1 python -m tests.helpers.pack_fuzzer --seed 5 --n 3000 --random --signed

By itself, not in the process of tests: what it looks for are crashes, hangs and gigabytes. The last line before a crash
names the mutation; a hang is ended with its traceback.
"""

import argparse
import contextlib
import faulthandler
import io
import json
import math
import os
import random
import resource
import shutil
import stat
import sys
import tempfile
import time
import warnings
import wave
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import hypothesis
import numba
import numpy as np
from hypothesis import strategies as st

from engine.blending.blender import open_blender
from engine.character.embeddings import write_embedding
from engine.character.pack import CharacterPack
from engine.character.perform import PerformOptions
from engine.character.retrieval import RetrievalOptions
from engine.errors import ArtifactError, InputError
from tango_rt import cli
from tango_rt.pipeline.character import Character
from tango_rt.pipeline.live import LiveOptions, Step
from tango_rt.pipeline.pictures import PictureSource
from tango_rt.pipeline.store import CharacterStore
from tango_rt.pipeline.transitions import TransitionStore
from tango_rt.server.listing import list_characters
from tango_rt.v1 import service_pb2
from tango_rt.video.codecs import FrameCoder
from tests.helpers.cues import stretches, with_cues
from tests.helpers.drawn_sets import with_drawn
from tests.helpers.fakes import make_pack
from tests.helpers.fakes_damage import sign, sign_fit, sign_video
from tests.helpers.pack_mutations import CACHE, Mutation, mutations, systematic
from tests.helpers.random_fits import fitted_of
from tests.helpers.speech import speech
from tests.helpers.walks import assert_walkable

HANG_S = 60
SPARE_BYTES = 3 << 29
MAX_LINE = 600
AFTER = (0.0, 1.0, 0.0, 0.5, 0.0)
"""Attention at the steps after an interruption."""

RENDERS = (
    ("--blender", "cut"),
    ("--blender", "flow"),
    ("--blender", "crossfade", "--lookahead", "0"),
    ("--blender", "cut", "--lookahead", "2", "--seed", "3", "--cues", "CUES"),
    ("--blender", "flow", "--lookahead", "1", "--retrieval", "onset"),
    ("--blender", "cut", "--search", "official"),
    ("--blender", "cut", "--retrieval", "fitted", "--words", "WORDS"),
    ("--blender", "flow", "--seed", "5", "--cues", "CUES"),
)
LIVES = (
    LiveOptions(0),
    LiveOptions(2),
    LiveOptions(None),
    LiveOptions(1, perform=PerformOptions(seed=4)),
    LiveOptions(2, drawn_only=True),
    LiveOptions(None, drawn_only=True),
    LiveOptions(2, perform=PerformOptions(RetrievalOptions("onset"))),
)
BLENDED = {"joints", "confidence", "hands_found", "surface", "video"}
REFRESHED = {"joints", "confidence", "clip_start", "mouth", "motion", "audio"}


class Fault(AssertionError):
    """The pack was neither taken nor refused as it should be."""


@dataclass
class Fuzzer:
    """One folder of packs with one pack in it, made again for every mutation."""

    place: Path
    counts: Counter[str] = field(default_factory=Counter)
    number: int = 0

    def __post_init__(self) -> None:
        self.whole = _whole_pack(self.place)
        self.folder = self.place / "packs" / "bob.tango"
        self.folder.parent.mkdir()
        self.speech, self.words = self.place / "speech.wav", self.place / "words.json"
        _write_wav(self.speech, speech(1.2))
        self.words.write_text('[{"word": "harbour", "start": 0.2, "end": 0.6}]')
        self.cues = self.place / "cues.json"
        self.cues.write_text('[{"name": "wave", "at": 0.4, "within": 0.5}]')
        self._known: dict[Any, Any] = {}
        self._restore()
        for option in range(max(len(RENDERS), len(LIVES))):  # compiled, and what is right
            self._expected(("render", option % len(RENDERS)), lambda o=option: self._render(o % len(RENDERS)))
            self._expected(("live", option % len(LIVES)), lambda o=option: self._live(o % len(LIVES)))
        self._refresh()

    def try_one(self, mutation: Mutation, signed: bool) -> None:
        """Raises Fault."""
        self.number += 1
        print(f"{self.number} {mutation.name}{', signed' if signed else ''}", flush=True)
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        self._restore()
        if self.number % 2 and not any(file.startswith(CACHE) for file in mutation.files):
            shutil.rmtree(self.folder / CACHE)  # else little is blended
        mutation.apply(self.folder)
        if signed:
            _sign(self.folder, mutation)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            self._drive(mutation, signed)
        faulthandler.cancel_dump_traceback_later()
        if said:
            raise Fault(f"{mutation.name}: a warning of {said[0].filename}:{said[0].lineno}: {said[0].message}")

    def _drive(self, mutation: Mutation, signed: bool) -> None:
        stems = {Path(file).stem for file in mutation.files}
        render, live = (1, 0) if stems & BLENDED else (self.number % len(RENDERS), self.number % len(LIVES))
        # arrays and pictures are hashed: what is taken in spite of a change does not see it
        same = not signed and all(file.endswith((".npy", ".npz", ".h264")) for file in mutation.files)
        tried: list[tuple[str, Any, Callable[[], Any]]] = [
            ("inspect", None, self._inspect),
            ("render", ("render", render), lambda: self._render(render)),
            ("live", ("live", live), lambda: self._live(live)),
        ]
        if self.number % 25 == 0 or stems & REFRESHED:
            tried.append(("refresh", None, self._refresh))
        for what, key, attempt in tried:
            try:
                found = attempt()
            except (ArtifactError, InputError) as error:
                self.counts[f"{what} refused"] += 1
                _check_line(str(error), mutation, what)
                continue
            except Fault as error:
                raise Fault(f"{mutation.name}: {what}: {error}") from error
            self.counts[f"{what} taken"] += 1
            if same and key is not None and found != self._known[key]:
                raise Fault(f"{mutation.name}: {what} gives something else")

    def _expected(self, key: Any, attempt: Callable[[], Any]) -> None:
        if key not in self._known:
            self._known[key] = attempt()
            if attempt() != self._known[key]:
                raise Fault(f"{key} differs from time to time")

    def _restore(self) -> None:
        if self.folder.is_symlink():
            self.folder.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.whole, self.folder)

    def _command(self, *arguments: str) -> dict[str, Any]:
        """A command line, here: what it prints with --json. Raises ArtifactError for what it says where it refuses."""
        out, err = io.StringIO(), io.StringIO()
        code: Any = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main([*arguments, "--json"])
            except SystemExit as left:
                code = left.code
        lines = err.getvalue().splitlines()
        told = [line for line in lines if ": warning: " not in line]
        if any(not line.isprintable() or len(line) > MAX_LINE for line in lines):
            raise Fault(f"it says {lines!a:.2000}")
        if code == 0 and not told:
            return json.loads(out.getvalue(), parse_constant=_no_number)
        if code == 2 and len(told) == 1 and not out.getvalue() and "internal error" not in told[0]:
            raise ArtifactError(told[0])
        raise Fault(f"exit code {code}, it says {lines!a:.2000}")

    def _inspect(self) -> None:
        self._command("character", "inspect", str(self.folder))
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            try:
                cli.main(["character", "inspect", str(self.folder)])
            except SystemExit as left:
                if left.code != 2:
                    raise Fault(f"exit code {left.code} of inspect without --json") from left
        if any(not line.isprintable() for line in out.getvalue().split("\n")):
            raise Fault(f"it prints {out.getvalue()!a:.1000}")

    def _refresh(self) -> None:
        self._command("character", "refresh", str(self.folder))

    def _render(self, option: int) -> tuple[list[int], bytes]:
        output = self.place / "o.mp4"
        output.unlink(missing_ok=True)
        files = {"WORDS": str(self.words), "CUES": str(self.cues)}
        options = [files.get(word, word) for word in RENDERS[option]]
        try:
            made = self._command(
                "render", str(self.folder), str(self.speech), "-o", str(output), "--jobs", "1", *options
            )
        except ArtifactError:
            if output.exists():
                raise Fault("a video in spite of the error") from None
            raise
        if made["cost"] is not None and not math.isfinite(made["cost"]):
            raise Fault(f"a path of cost {made['cost']}")
        return made["nodes"], output.read_bytes()

    def _live(self, option: int) -> list[tuple[Step, tuple[bytes, ...]]]:
        """As a server has it: a list of all characters, a session of this one."""
        store = CharacterStore(self.folder.parent)
        store.look()
        list_characters(store, service_pb2.ListCharactersRequest()).SerializeToString()
        for problem in store.problems.values():
            _check_line(problem, None, "look")
        character = store.get("bob")
        if "bob" not in store.listed:
            raise Fault("available, and not listed")
        steps = list(_performed(character, LIVES[option]))
        for part in (steps[: -len(AFTER)], steps[-len(AFTER) :]):  # a cut at once leaves the graph
            assert_walkable(character, part)
        blender = open_blender(("flow", "crossfade", "cut")[option % 3])
        pictures = PictureSource(character.pack, blender, None, TransitionStore(character.pack, blender))
        coder = FrameCoder(("jpeg", "i420", "rgb24", "h264", "reference")[option % 5], character.pack.info)
        drawn = [pictures.draw(step) for step in steps]
        return [(step, tuple(coder.encode(one))) for step, one in zip(steps, drawn, strict=True)]


def _performed(character: Character, options: LiveOptions) -> Iterator[Step]:
    live = character.performer(options)
    live.cue("wave", within_s=2.0)
    for _ in range(5):
        yield live.idle()
    for part in np.array_split(speech(2.0), 4):
        live.push(part, "a")
        while (step := live.next()) is not None:
            yield step
    live.end_of_utterance()
    while (step := live.next()) is not None:
        yield step
    live.interrupt("cut")
    for attention in AFTER:
        yield live.idle(attention)


def _whole_pack(place: Path) -> Path:
    """With all that a pack can have: a fit, words, groups of looks, cached transitions."""
    pack = make_pack(place / "whole" / "bob.tango", (16, 9))
    about = {"choice": "fitted", "why": "it is", "speech_s": 3.0, "lag_frames": 2, "scores": {"onset": None}}
    write_embedding(pack.path, fitted_of(), pack.recording, about)
    record = json.loads((pack.path / "pack.json").read_text())
    span = {"source": "fake.mp4", "first_s": 0.0, "last_s": 2.0}
    groups = [{"seconds": 2.0, "kept": kept, "spans": [span]} for kept in (True, False)]
    record["report"] = {"warnings": ["dark"], "groups": groups, "connection": {"rule": "window"}}
    record["words"] = '[{"word": "harbour", "start": 0.5, "end": 0.9}]'
    (pack.path / "pack.json").write_text(json.dumps(record))
    pack = with_drawn(CharacterPack.open(pack.path), "flow")
    store = TransitionStore(pack, open_blender("flow"))
    sources, targets = pack.graph.sources, pack.graph.indices
    for k in np.flatnonzero(pack.graph.kind != 0)[:8].tolist():
        cut = int(sources[k]), int(targets[k])
        store.keep(cut, store.packets(cut))
    with_cues(CharacterPack.open(pack.path), nod=(stretches(pack, 2)[0], 2), wave=(stretches(pack, 4)[-1], 4))
    return pack.path


def _write_wav(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def _sign(folder: Path, mutation: Mutation) -> None:
    large = any(file.is_file() and file.stat().st_size > 1 << 26 for file in folder.rglob("*"))
    special = any(not stat.S_ISREG(file.stat().st_mode) for file in folder.rglob("*.json") if file.exists())
    if large or special:
        return
    with contextlib.suppress(Exception):
        sign_fit(folder)
    if "video.h264" in mutation.files or "packet_start.npy" in mutation.files:
        with contextlib.suppress(Exception):
            sign_video(folder)
    with contextlib.suppress(Exception):
        sign(folder)


def _check_line(line: str, mutation: Mutation | None, what: str) -> None:
    if not line.isprintable() or len(line) > MAX_LINE or "bob" not in line:
        raise Fault(f"{mutation}: {what} is refused in other words than one line about the pack: {line!a:.1000}")


def _no_number(text: str) -> None:
    raise Fault(f"{text} in JSON")


def _chosen(n: int, seed: int) -> list[Mutation]:
    """n of the systematic ones, of every file and kind about as many."""
    groups: dict[str, list[Mutation]] = {}
    for mutation in systematic():
        groups.setdefault(f"{mutation.files} {mutation.name.split(' = ')[0].split(' byte ')[0]}", []).append(mutation)
    generator = random.Random(seed)
    rows = list(groups.values())
    generator.shuffle(rows)
    for row in rows:
        generator.shuffle(row)
    return [mutation for column in zip_longest(*rows) for mutation in column if mutation is not None][:n]


def _run_random(fuzzer: Fuzzer, n: int, seed: int, signed: bool | None, keep_going: bool) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=n,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate] if keep_going else [hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )
    @hypothesis.given(mutations(), st.booleans() if signed is None else st.just(signed))
    def run(mutation: Mutation, signed: bool) -> None:
        _attempt(fuzzer, mutation, signed, keep_going)

    run()


def _attempt(fuzzer: Fuzzer, mutation: Mutation, signed: bool, keep_going: bool) -> None:
    try:
        fuzzer.try_one(mutation, signed)
    except Exception as error:
        if not keep_going:
            raise
        fuzzer.counts["FAULTS"] += 1
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        at = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
        print(f"FAULT {type(error).__name__} {at}: {error!s:.3000} [{mutation.name}{', signed' if signed else ''}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, default=300, help="mutations (default: 300)")
    parser.add_argument("--random", action="store_true", help="drawn ones, in place of the systematic ones")
    parser.add_argument("--signed", action="store_true", help="all with hashes that fit, not every other")
    parser.add_argument("--skip", default="\0", metavar="TEXT", help="listed ones whose name holds it")
    parser.add_argument("--keep-going", action="store_true", help="print faults, and end with 1 after the last")
    arguments = parser.parse_args()
    if not numba.config.BOUNDSCHECK:
        parser.error("kernels would not check their indices: set NUMBA_BOUNDSCHECK=1")
    faulthandler.enable()
    signed = True if arguments.signed else None
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        fuzzer = Fuzzer(Path(place))
        print(f"ready after {time.monotonic() - started:.0f} s", flush=True)
        _bound_memory()
        if arguments.random:
            _run_random(fuzzer, arguments.n, arguments.seed, signed, arguments.keep_going)
        else:
            chosen = [one for one in _chosen(arguments.n, arguments.seed) if arguments.skip not in one.name]
            for number, mutation in enumerate(chosen):
                _attempt(fuzzer, mutation, signed or number % 2 == 1, arguments.keep_going)
    print(f"{fuzzer.number} mutations in {time.monotonic() - started:.0f} s: {dict(fuzzer.counts)}")
    sys.exit(1 if fuzzer.counts["FAULTS"] else 0)


def _bound_memory() -> None:
    """No pack is worth more: what would allocate more fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    main()
