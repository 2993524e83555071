"""Files below a folder, found by the names of a table."""

import pandas as pd
import pytest

from chestxray.data.sources.file_names import find_files
from chestxray.errors import DataError


@pytest.fixture
def root(tmp_path):
    for name in ("a.png", "deep/er/b.png", "one/study/view.jpg", "two/study/view.jpg", "scan.dcm", "__MACOSX/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.png", "a.png"),
        ("b.png", "deep/er/b.png"),
        ("Set-small/er/b.png", "deep/er/b.png"),
        ("b", "deep/er/b.png"),
        ("scan", "scan.dcm"),
        ("scan.png", "scan.dcm"),
        ("Set-small\\two\\study\\view.jpg", "two/study/view.jpg"),
        ("two/study/view", "two/study/view.jpg"),
        ("three/study/view.jpg", None),
        ("c.png", None),
        ("nothing.png", None),
    ],
)
def test_a_file_is_found_by_its_name_in_any_depth(root, name, found):
    assert find_files(root, pd.Series([name])).tolist() == [str(root / found) if found else ""]


def test_an_absolute_path_is_itself_and_rows_keep_their_order(root):
    names = pd.Series(["b.png", str(root / "a.png"), "b.png", "no"], index=[5, 3, 9, 1])
    found = find_files(root, names)
    assert found.index.tolist() == [5, 3, 9, 1]
    assert found.tolist() == [str(root / "deep/er/b.png"), str(root / "a.png"), str(root / "deep/er/b.png"), ""]


@pytest.mark.parametrize("name", ["view.jpg", "study/view.jpg", "view"])
def test_a_name_that_several_files_have_is_refused_in_one_line(root, name):
    with pytest.raises(DataError, match=r"Several files below .* have the name .*one/study/view\.jpg, two") as caught:
        find_files(root, pd.Series(["a.png", name]))
    assert "\n" not in str(caught.value)
