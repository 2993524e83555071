import errno
import json

import pytest

from chestxray.errors import OutputError
from chestxray.storage.files import explained, replacing, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_valid_json(tmp_path):
    write_json(tmp_path / "a.json", {"é": None})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"é": None}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))


def test_a_full_disk_is_one_clear_line(tmp_path):
    with pytest.raises(OutputError, match="the disk is full"), explained(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_other_failures_keep_their_traceback(tmp_path):
    with pytest.raises(OSError, match="strange"), explained(tmp_path):
        raise OSError(errno.EIO, "strange")
