"""The key that a gateway makes for itself at its first start and keeps."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway import keyfile


def test_the_first_start_makes_a_key_of_32_hexadecimal_digits(tmp_path: Path) -> None:
    key, is_new = keyfile.read_or_create(tmp_path / "deep" / "data")
    assert is_new
    assert len(key) == 32
    assert set(key) <= set("0123456789abcdef")


def test_a_restart_finds_the_same_key(tmp_path: Path) -> None:
    key, _ = keyfile.read_or_create(tmp_path)
    assert keyfile.read_or_create(tmp_path) == (key, False)
    assert keyfile.read(tmp_path) == key


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    keyfile.read_or_create(tmp_path)
    assert stat.S_IMODE((tmp_path / ".gateway-key").stat().st_mode) == 0o600


def test_reading_alone_makes_nothing(tmp_path: Path) -> None:
    assert keyfile.read(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_all_who_start_at_once_get_the_same_key_and_leave_no_draft(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: keyfile.read_or_create(tmp_path), range(32)))
    assert len({key for key, _ in answers}) == 1
    assert sum(is_new for _, is_new in answers) == 1
    assert [path.name for path in tmp_path.iterdir()] == [".gateway-key"]


def test_a_place_that_cannot_hold_it_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(keyfile.KeyFileError, match=r"file.*set GATEWAY_KEY"):
        keyfile.read_or_create(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_the_right_to_write_is_named_with_the_cure(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(keyfile.KeyFileError, match="set GATEWAY_KEY"):
        keyfile.read_or_create(tmp_path)


@pytest.mark.parametrize("content", ["", "\n", "a b", "x=1"])
def test_a_file_that_holds_no_key_is_not_replaced(content: str, tmp_path: Path) -> None:
    (tmp_path / ".gateway-key").write_text(content)
    with pytest.raises(keyfile.KeyFileError, match="holds no key"):
        keyfile.read_or_create(tmp_path)
    assert (tmp_path / ".gateway-key").read_text() == content
