"""A drawn character of 96 x 64 pixels: real graph, real encoded video, no pose estimator, built in a second."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from engine.character.embeddings import write_embedding
from engine.character.info import Clip, PackInfo, Source
from engine.character.pack import CharacterPack
from engine.character.steps import motion_level
from engine.character.writer import PackWriter
from engine.features.appearance import N_CELLS
from engine.features.onset import OnsetEmbedding
from engine.features.recording import Recording
from engine.features.rest import rest_distance
from engine.motion_graph.graph import build_graph
from engine.motion_graph.hands import hand_gaps
from engine.skeleton import LEFT_WRIST, N_JOINTS, PARENTS, RIGHT_WRIST, joint_weights
from engine.timebase import FRAMES_PER_NODE, frame_start
from tango_rt.video.gop import GopEncoder

WIDTH, HEIGHT = 96, 64
SHOULDER_PX = 20.0


def fake_joints(n_frames: int, seed: int = 0) -> np.ndarray:
    """Joints of a person waving, float32 (F, 75, 3): everything still but the arms, which go round and round."""
    rng = np.random.default_rng(seed)
    home = rng.uniform([30, 15, -3], [66, 50, 3], (N_JOINTS, 3)).astype(np.float32)
    joints = np.repeat(home[None], n_frames, axis=0)
    angle = 2 * np.pi * np.arange(n_frames) / 40 + 0.3 * np.sin(np.arange(n_frames) / 17)
    for wrist, side in ((LEFT_WRIST, 1), (RIGHT_WRIST, -1)):
        moved = [j for j in range(N_JOINTS) if j == wrist or PARENTS[j] == wrist or _rooted_at(j, wrist)]
        joints[:, moved, 0] += 8 * side * np.cos(angle)[:, None]
        joints[:, moved, 1] += 8 * np.sin(angle)[:, None]
    return joints


def _rooted_at(joint: int, ancestor: int) -> bool:
    while joint >= 0:
        if joint == ancestor:
            return True
        joint = int(PARENTS[joint])
    return False


def fake_frames(joints: np.ndarray) -> np.ndarray:
    """A picture of each pose: uint8 (F, HEIGHT, WIDTH, 3)."""
    frames = np.full((len(joints), HEIGHT, WIDTH, 3), 200, np.uint8)
    for frame, pose in zip(frames, joints, strict=True):
        cv2.ellipse(frame, (48, 40), (14, 22), 0, 0, 360, (40, 60, 120), -1, cv2.LINE_AA)
        for wrist in (LEFT_WRIST, RIGHT_WRIST):
            cv2.circle(frame, (int(pose[wrist, 0]), int(pose[wrist, 1])), 5, (190, 140, 110), -1, cv2.LINE_AA)
    return frames


def make_pack(path: Path, clip_nodes: tuple[int, ...] = (40, 25), seed: int = 0) -> CharacterPack:
    """Write a whole pack and open it."""
    rng = np.random.default_rng(seed)
    n_nodes = sum(clip_nodes)
    n_frames = n_nodes * FRAMES_PER_NODE
    clip_start = np.cumsum([0, *clip_nodes])
    joints = fake_joints(n_frames, seed)
    surface = np.zeros((n_frames, 96), np.uint64)
    surface[:, 12:40] = np.uint64(0x000000FFFF000000)
    graph, _ = build_graph(joints, surface, clip_start, joint_weights(), SHOULDER_PX)
    confidence = np.ones((n_frames, N_JOINTS), np.float32)
    audio = rng.integers(-1000, 1000, frame_start(n_frames))
    recording = Recording(path.stem, (audio / 32768).astype(np.float32), joints, confidence, clip_start, SHOULDER_PX)
    encoder = GopEncoder(WIDTH, HEIGHT)
    with PackWriter(path) as writer:
        for group in fake_frames(joints).reshape(n_nodes, FRAMES_PER_NODE, HEIGHT, WIDTH, 3):
            writer.add_packets(encoder.encode(group))
        info = PackInfo(
            name=path.stem,
            width=WIDTH,
            height=HEIGHT,
            n_frames=n_frames,
            shoulder_px=SHOULDER_PX,
            sources=(Source("fake.mp4", "0" * 64, n_frames),),
            clips=tuple(
                Clip(0, int(a) * FRAMES_PER_NODE, int(b - a) * FRAMES_PER_NODE) for a, b in pairwise(clip_start)
            ),
            extradata=encoder.extradata,
        )
        arrays = {
            "clip_start": clip_start,
            "audio": audio,
            "joints": joints,
            "confidence": confidence,
            "valid": np.ones(n_frames, bool),
            "hands_found": np.ones((n_frames, 2), bool),
            "hand_boxes": np.zeros((n_frames, 2, 4)),
            "surface": surface,
            "appearance": np.zeros((n_frames, N_CELLS, 3), np.uint8),
            "mouth": np.zeros((n_frames, 2)),
            "motion": np.zeros((n_frames, N_JOINTS, 15)),
            "graph_indptr": graph.indptr,
            "graph_indices": graph.indices,
            "graph_distance": graph.distance,
            "graph_kind": graph.kind,
            "graph_kept": graph.kept,
            "graph_hand_gap": hand_gaps(graph, joints, SHOULDER_PX),
            "motion_level": motion_level(recording),
            "rest": rest_distance(joints, confidence, clip_start, SHOULDER_PX),
        }
        write_embedding(writer.folder, OnsetEmbedding(), recording, {})
        writer.commit(info, arrays)
    return CharacterPack.open(path)
