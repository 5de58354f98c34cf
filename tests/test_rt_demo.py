"""The demo's own parts; the whole of it is what `make demo` runs."""

from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from tango_rt.demo.run import run_demo
from tango_rt.pipeline.plot import contact_sheet
from tests.helpers.media_files import gray_pictures, write_video


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file")
    with pytest.raises(InputError, match="needs a folder"):
        run_demo(tmp_path / "demo", 1)


def test_contact_sheet_shows_the_video_in_order(tmp_path: Path) -> None:
    import cv2

    video = write_video(tmp_path / "ramp.mp4", gray_pictures(np.linspace(40, 220, 60).astype(int)))
    contact_sheet(video, tmp_path / "sheet.png", columns=3, rows=2, width_px=64)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (96, 192, 3)
    levels = [int(np.median(sheet[r * 48 : r * 48 + 48, c * 64 : c * 64 + 64])) for r in range(2) for c in range(3)]
    assert levels == sorted(levels) and levels[0] < 50 and levels[-1] > 210
