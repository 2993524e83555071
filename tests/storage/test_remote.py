import contextlib
import threading

import fsspec
import pytest
from click.testing import CliRunner

from chestxray.cli.main import group
from chestxray.errors import DataError, InputError, OutputError
from chestxray.storage import remote


@pytest.fixture(params=["file", "memory"])
def address(request, tmp_path):
    if request.param == "file":
        return f"file://{tmp_path}/store/run"
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    return "memory://bucket/run"


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def kept(address):
    """The names at the address, without the lists."""
    store, root = fsspec.core.url_to_fs(address)
    names = [name.rpartition("bucket/run/" if "memory" in address else "store/run/")[2] for name in store.find(root)]
    return sorted(name for name in names if name not in remote._LISTS)


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)


def test_what_is_written_comes_back(address):
    with remote.working(address) as folder:
        assert not folder.exists(), "a new run makes its folder itself"
        write(folder / "figures", roc="curve")
        write(folder, recipe="model")
    assert kept(address) == ["figures/roc", "recipe"]
    assert contents(remote.fetched(address)) == {"figures/roc": b"curve", "recipe": b"model"}
    with remote.working(address, must_exist=True) as folder:
        (folder / "recipe").write_text("another")
        (folder / "figures" / "roc").unlink()
    assert kept(address) == ["recipe"]
    assert contents(remote.fetched(address)) == {"recipe": b"another"}


def test_files_are_copied_while_the_block_goes_on(address, monkeypatch):
    monkeypatch.setattr(remote, "INTERVAL", 0.05)
    with remote.working(address) as folder:
        write(folder, history="1 epoch")
        for text in ("1 epoch", "2 epochs"):
            write(folder, history=text)
            for _ in range(600):
                found = remote.Mirror(address).files.get("history")
                if found and found["bytes"] == len(text) and kept(address) == [found["object"]]:
                    break
                threading.Event().wait(0.05)
            assert found["bytes"] == len(text)
            assert kept(address) == [found["object"]], "the one before is deleted"
    assert kept(address) == ["history"]


def test_a_copy_that_was_cut_off_leaves_the_one_before(address, tmp_path, monkeypatch):
    """Whatever call of the store is the last: what is fetched is the state before or after, never a mixture."""
    before, after = {"a": "1", "b": "1"}, {"a": "2", "c": "2"}
    states = [{name: text.encode() for name, text in state.items()} for state in (before, after)]
    finished, calls = False, 0
    seen = []
    while not finished:
        calls += 1
        place = f"{address}{calls}"
        with remote.working(place) as folder:
            write(folder, **before)
        work = tmp_path / f"work{calls}"
        mirror = remote.Mirror(place)
        mirror.fetch(work)
        (work / "b").unlink()
        write(work, **after)
        left = calls

        def counted(call):
            def called(*given, **options):
                nonlocal left
                left -= 1
                if left == 0:
                    if call.__name__ == "pipe_file":  # written in part
                        call(given[0], given[1][: len(given[1]) // 2])
                    raise KeyboardInterrupt
                return call(*given, **options)

            return called

        with monkeypatch.context() as patch:
            for name in ("put_file", "pipe_file", "rm_file"):
                patch.setattr(mirror.store, name, counted(getattr(mirror.store, name)))
            with contextlib.suppress(KeyboardInterrupt):
                finished = mirror.push(work, complete=True)
        found = contents(remote.fetched(place))
        assert found in states, calls
        seen.append(states.index(found))
    assert seen == sorted(seen)
    assert len(seen) > 5
    assert set(seen) == {0, 1}


def test_a_file_that_was_damaged_or_is_gone_is_named(address):
    with remote.working(address) as folder:
        write(folder, a="12345", b="12345")
    store, root = fsspec.core.url_to_fs(address)
    store.pipe_file(f"{root}/a", b"12346")
    with pytest.raises(DataError, match=r"run/a is damaged"):
        remote.fetched(address)
    store.rm_file(f"{root}/a")
    with pytest.raises(InputError, match=r"cannot be read: "):
        remote.fetched(address)


def test_what_a_stranger_put_there_is_not_overwritten(address):
    store, root = fsspec.core.url_to_fs(address)
    store.makedirs(root, exist_ok=True)
    store.pipe_file(f"{root}/thesis.txt", b"years of work")
    with pytest.raises(OutputError, match="holds files that are not of chestxray"), remote.working(address):
        pytest.fail("opened")
    assert kept(address) == ["thesis.txt"]


def test_a_list_never_leads_out_of_its_folder(address, tmp_path):
    with remote.working(address) as folder:
        write(folder, a="1")
    mirror = remote.Mirror(address)
    mirror._list({"../../outside": mirror.files["a"]})
    with pytest.raises(DataError, match="a file outside of itself"):
        remote.fetched(address)


def test_an_error_keeps_the_files_and_is_not_hidden(address):
    with pytest.raises(ZeroDivisionError), remote.working(address) as folder:
        write(folder, a="1")
        _ = 1 / 0
    assert contents(remote.fetched(address)) == {"a": b"1"}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nonsense://bucket/run", "Protocol not known: nonsense"),
        ("memory://nothing/here", "There is no folder of chestxray at memory://nothing/here"),
        ("gs://bucket/run", "install gcsfs to access"),
    ],
)
@pytest.mark.parametrize(
    "command", [["predict", "{}", "x.png"], ["export", "{}", "--format", "onnx"], ["compare", "{}", "{}"]]
)
def test_an_address_that_cannot_be_reached_is_one_line(command, address, said):
    done = CliRunner().invoke(group, [part.format(address) for part in command], standalone_mode=False)
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)


def test_paths_are_no_addresses(tmp_path):
    assert not any(map(remote.is_address, ["runs/x", "/a/b", r"C:\runs", "C:/runs", "a:b", tmp_path, None, "s3:/b"]))
    with remote.at("runs/x") as place:
        assert str(place) == "runs/x"
    assert remote.opened(tmp_path) == tmp_path
