"""The networks of MediaPipe Holistic and its face detector, from the wheel of release 0.10.14."""

from dataclasses import dataclass

__all__ = ["HOLISTIC", "ModelFile", "ModelSet"]


@dataclass(frozen=True)
class ModelFile:
    """A file of a wheel: its path there and the SHA-256 of its content."""

    member: str
    sha256: str

    @property
    def name(self) -> str:
        return self.member.rpartition("/")[2]


@dataclass(frozen=True)
class ModelSet:
    """Which files to take from which release of a package. Its wheels for all systems and Pythons hold the same."""

    title: str
    distribution: str
    version: str
    licence: str  # path of its licence in the wheel
    files: tuple[ModelFile, ...]
    platform: str  # of the wheel to download, and so is `python`
    python: str
    wheel_mb: int

    @property
    def release(self) -> str:
        return f"{self.distribution}-{self.version}"


HOLISTIC = ModelSet(
    title="pose networks",
    distribution="mediapipe",
    version="0.10.14",
    licence="mediapipe-0.10.14.dist-info/LICENSE",
    platform="manylinux2014_x86_64",
    python="3.12",
    wheel_mb=36,
    files=(
        ModelFile(
            "mediapipe/modules/face_detection/face_detection_full_range_sparse.tflite",
            "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
        ),
        ModelFile(
            "mediapipe/modules/face_detection/face_detection_short_range.tflite",
            "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
        ),
        ModelFile(
            "mediapipe/modules/face_landmark/face_landmark.tflite",
            "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
        ),
        ModelFile(
            "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
            "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
        ),
        ModelFile(
            "mediapipe/modules/holistic_landmark/hand_recrop.tflite",
            "67d996ce96f9d36fe17d2693022c6da93168026ab2f028f9e2365398d8ac7d5d",
        ),
        ModelFile(
            "mediapipe/modules/pose_detection/pose_detection.tflite",
            "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        ),
        ModelFile(
            "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
            "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        ),
    ),
)
