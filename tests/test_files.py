"""Files are read whole, bounded, and without waiting for anybody."""

import os
from pathlib import Path

import pytest

from engine.files import open_plain, read_plain


def test_a_file_of_just_the_size_is_read(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(bytes(range(256)) * 8192)
    assert read_plain(file, 256 * 8192) == bytes(range(256)) * 8192


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert read_plain(tmp_path / "f", 0) == b""


def test_one_byte_more_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    with pytest.raises(OSError, match="5 bytes, at most 4 are allowed"):
        read_plain(tmp_path / "f", 4)


def test_what_says_that_it_is_empty_is_bounded_all_the_same() -> None:
    """The size of files of the kernel is 0, whatever is in them."""
    kernel = Path("/proc/self/environ")
    if not kernel.exists():
        pytest.skip("this system has no /proc")
    with pytest.raises(OSError, match="at most 3 are allowed"):
        read_plain(kernel, 3)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: object) -> None:
    make(tmp_path / "f")  # type: ignore[operator]
    with pytest.raises(OSError, match="not a regular file"):
        read_plain(tmp_path / "f", 100)


def test_devices_are_refused() -> None:
    with pytest.raises(OSError, match="not a regular file"):
        read_plain(Path("/dev/zero"), 100)


def test_links_are_followed_only_where_they_may_be(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "f")
    assert read_plain(tmp_path / "link", 100) == b"1"
    with pytest.raises(OSError, match="a link"):
        read_plain(tmp_path / "link", 100, follow_links=False)


def test_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1" * 10)
    lowest = open_plain(tmp_path / "f")
    os.close(lowest)
    read_plain(tmp_path / "f", 10)
    for wrong in (tmp_path, tmp_path / "f"):
        with pytest.raises(OSError, match=r"regular|at most"):
            read_plain(wrong, 1)
    again = open_plain(tmp_path / "f")
    os.close(again)
    assert again == lowest
