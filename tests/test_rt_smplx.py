"""SMPL-X files: both forms, bad ones, and forward kinematics with a small made-up body model."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from engine.errors import InputError
from tango_rt.characters.smplx import joint_positions, read_body_model, read_smplx

N = 55
PARENTS = [-1, 0, 0, 0, *[(joint * 7) % joint for joint in range(4, N)]]


@pytest.fixture
def model_file(tmp_path: Path, rng: np.random.Generator) -> Path:
    """The keys of SMPLX_NEUTRAL.npz with 60 vertices and 5 shapes."""
    n_vertices = 60
    regressor = rng.dirichlet(np.ones(n_vertices), N)
    path = tmp_path / "SMPLX_SMALL.npz"
    np.savez(
        path,
        v_template=rng.normal(size=(n_vertices, 3)),
        shapedirs=rng.normal(size=(n_vertices, 3, 5)) * 0.1,
        J_regressor=regressor,
        weights=rng.dirichlet(np.ones(N), n_vertices),
        kintree_table=np.array([[2**32 - 1, *PARENTS[1:]], range(N)], np.uint32),
        hands_componentsl=rng.normal(size=(45, 45)),
        hands_componentsr=rng.normal(size=(45, 45)),
        hands_meanl=rng.normal(size=45),
        hands_meanr=rng.normal(size=45),
    )
    return path


def write_release_form(path: Path, poses: np.ndarray, **more: object) -> Path:
    arrays = {"poses": poses, "trans": np.zeros((len(poses), 3)), "betas": np.zeros(300)}
    np.savez(path, **(arrays | more))
    return path


def naive_positions(poses: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Each joint by the chain of 4 x 4 matrices from the pelvis to it."""
    out = np.zeros((len(poses), N, 3))
    for frame, pose in enumerate(poses):
        for joint in range(N):
            chain = [joint]
            while PARENTS[chain[-1]] >= 0:
                chain.append(PARENTS[chain[-1]])
            matrix = np.eye(4)
            for link in reversed(chain):
                step = np.eye(4)
                step[:3, :3] = Rotation.from_rotvec(pose[3 * link : 3 * link + 3]).as_matrix()
                step[:3, 3] = rest[link] - (rest[PARENTS[link]] if PARENTS[link] >= 0 else 0)
                matrix = matrix @ step
            out[frame, joint] = matrix[:3, 3]
    return out


@pytest.mark.parametrize("zero_shape", [True, False])
def test_positions_equal_the_slow_chain(
    tmp_path: Path, model_file: Path, rng: np.random.Generator, zero_shape: bool
) -> None:
    poses = rng.normal(0, 0.6, (4, 165))
    trans, betas = rng.normal(size=(4, 3)), rng.normal(size=5)
    motion = read_smplx(write_release_form(tmp_path / "a.npz", poses, trans=trans, betas=betas))
    with np.load(model_file) as arrays:
        shaped = arrays["v_template"] + (0 if zero_shape else arrays["shapedirs"] @ betas)
        rest = arrays["J_regressor"] @ shaped
    whole = joint_positions(motion, read_body_model(model_file), zero_root=False, zero_shape=zero_shape)
    np.testing.assert_allclose(whole, naive_positions(poses, rest) + trans[:, None], atol=1e-5)
    rooted = poses.copy()
    rooted[:, :3] = rooted[:, 66:75] = 0
    relative = joint_positions(motion, read_body_model(model_file), zero_shape=zero_shape)
    np.testing.assert_allclose(relative, naive_positions(rooted, rest), atol=1e-5)
    assert np.ptp(relative[:, :4], axis=0).max() < 1e-6  # pelvis and its children stay


def test_component_hands_need_the_model(tmp_path: Path, model_file: Path, rng: np.random.Generator) -> None:
    arrays = {name: rng.normal(size=(3, 3)) for name in ("transl", "jaw_pose", "leye_pose", "reye_pose")}
    arrays |= {"left_hand_pose": rng.normal(size=(3, 12)), "right_hand_pose": rng.normal(size=(3, 12))}
    arrays |= {"body_pose_axis": rng.normal(size=(3, 63)), "global_orient": rng.normal(size=(3, 1, 3))}
    path = tmp_path / "fit.npz"
    np.savez(path, **arrays)
    without = read_smplx(path)
    assert not without.has_hands and not without.poses[:, 75:].any()
    np.testing.assert_allclose(without.poses[:, 3:66], arrays["body_pose_axis"], rtol=1e-6)
    np.testing.assert_allclose(without.poses[:, :3], arrays["global_orient"][:, 0], rtol=1e-6)
    np.testing.assert_allclose(without.poses[:, 69:72], arrays["leye_pose"], rtol=1e-6)
    having = read_smplx(path, read_body_model(model_file))
    with np.load(model_file) as model:
        right = model["hands_meanr"] + arrays["right_hand_pose"] @ model["hands_componentsr"][:12]
    assert having.has_hands
    np.testing.assert_allclose(having.poses[:, 120:], right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fps", [15, 60, 120])
def test_other_frame_rates_become_30(tmp_path: Path, fps: int) -> None:
    times = np.arange(2 * fps) / fps
    poses = np.zeros((len(times), 165))
    poses[:, 5] = 2.5 * times  # a steady turn, past pi: wraps
    motion = read_smplx(
        write_release_form(
            tmp_path / "a.npz", poses, trans=np.stack([times] * 3, axis=1), mocap_frame_rate=np.array(fps)
        )
    )
    wanted = np.arange(len(motion.poses)) / 30
    assert abs(len(wanted) - 60) <= 1
    turned = (
        Rotation.from_rotvec(motion.poses[:, 3:6])
        * Rotation.from_rotvec(np.stack([0 * wanted, 0 * wanted, 2.5 * wanted], axis=1)).inv()
    )
    assert turned.magnitude().max() < 1e-4
    np.testing.assert_allclose(motion.trans[:, 0], wanted, atol=1e-5)


def test_reads_the_real_fits(data_dir: Path) -> None:
    files = sorted((data_dir / "motion").glob("*.smplx.npz"))
    assert files
    for file in files:
        motion = read_smplx(file)
        assert motion.poses.shape == (len(motion.trans), 165) and motion.poses[:, 3:66].any()


def bad_files(folder: Path) -> dict[str, Path]:
    def save(name: str, **arrays: object) -> Path:
        np.savez(folder / f"{name}.npz", **arrays)
        return folder / f"{name}.npz"

    good = {"poses": np.zeros((4, 165)), "trans": np.zeros((4, 3))}
    broken = np.zeros((4, 165))
    broken[2, 3] = np.nan
    text = folder / "text.npz"
    text.write_text("no archive")
    claim = io.BytesIO()
    np.lib.format.write_array_header_1_0(claim, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 165)})
    with zipfile.ZipFile(folder / "claim.npz", "w") as archive:
        archive.writestr("poses.npy", claim.getvalue())
    return {
        "does not exist": folder / "absent.npz",
        "cannot be read": text,
        "neither 'poses' nor": save("other", x=np.zeros(3)),
        "lacks the array 'trans'": save("half", poses=good["poses"]),
        r"shape \(4, 60\), not \(any, 165\)": save("narrow", poses=np.zeros((4, 60)), trans=good["trans"]),
        r"shape \(3, 3\), not \(4, 3\)": save("short", poses=good["poses"], trans=np.zeros((3, 3))),
        "not finite": save("nan", poses=broken, trans=good["trans"]),
        "plain numbers": save("pickle", poses=np.array([{}] * 4, object), trans=good["trans"]),
        "0 frames": save("empty", poses=np.zeros((0, 165)), trans=np.zeros((0, 3))),
        "frame rate of 0": save("still", **good, mocap_frame_rate=np.array(0)),
        "is larger than": folder / "claim.npz",
    }


def test_bad_files_get_one_clear_line(tmp_path: Path) -> None:
    for message, path in bad_files(tmp_path).items():
        with pytest.raises(InputError, match=message) as caught:
            read_smplx(path)
        assert "\n" not in str(caught.value)


def test_a_model_whose_joints_hang_on_later_ones_is_refused(tmp_path: Path, model_file: Path) -> None:
    with np.load(model_file) as arrays:
        changed = dict(arrays)
    changed["kintree_table"] = changed["kintree_table"].copy()
    changed["kintree_table"][0, 5] = 9
    np.savez(tmp_path / "cycle.npz", **changed)
    with pytest.raises(InputError, match="comes later"):
        read_body_model(tmp_path / "cycle.npz")
