"""Recorded outputs of the research release: the 15-number representation of SMPL-X motion."""

import os
from pathlib import Path

import numpy as np
import pytest

from engine.features.motion import axis_angle_to_matrix, smplx_motion_vectors, velocities

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("TANGO_GOLDEN_DIR", ROOT.parent / "shared" / "golden")) / "misc"
MOTION_FILES = sorted(FOLDER.glob("motion_reps_*.npz"))


@pytest.mark.skipif(not MOTION_FILES, reason=f"no golden motion in {FOLDER} (set TANGO_GOLDEN_DIR)")
@pytest.mark.parametrize("file", MOTION_FILES, ids=lambda file: file.stem)
def test_smplx_motion_equals_the_release(file: Path) -> None:
    with np.load(file, allow_pickle=False) as golden:
        for clip, axis_angle in enumerate(golden["axis_angle"]):
            positions = golden["out_position"][clip]
            n_frames, n_joints = positions.shape[:2]
            rotations = axis_angle.reshape(n_frames, n_joints, 3)
            matrices = axis_angle_to_matrix(rotations)[..., :2, :].reshape(n_frames, n_joints, 6)
            parts = {
                "out_velocity": velocities(positions),
                "out_rotation": matrices,
                "out_angular_velocity": velocities(rotations),
                "out_rep15d": smplx_motion_vectors(positions, axis_angle).reshape(n_frames, -1),
            }
            for name, part in parts.items():
                np.testing.assert_allclose(part, golden[name][clip], rtol=1e-5, atol=2e-5, err_msg=name)
