"""The folder of a run: one process at a time, and what a process that is killed leaves."""

import threading
from contextlib import contextmanager

import pytest

from chestxray import workflow
from chestxray.errors import OutputError
from chestxray.recipe import Recipe
from chestxray.runs import output_folder
from chestxray.runs.run_folder import is_run


@contextmanager
def another_at_work(folder):
    """Another thread holds the lock, as another process would."""
    began, end = threading.Event(), threading.Event()

    def hold():
        with output_folder.alone(folder):
            began.set()
            end.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    assert began.wait(60)
    try:
        yield
    finally:
        end.set()
        other.join()


@pytest.fixture
def begun(tmp_path):
    """A run that was stopped after its first files."""
    recipe = Recipe(model="shallow_cnn", data=("phantom",), image_size=32, epochs=1)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.toml").write_text(recipe.to_toml())
    (folder / "a.txt").touch()
    (folder / "z").mkdir()
    (folder / "z" / "state").touch()
    return folder


def test_two_processes_do_not_work_in_one_folder(begun):
    files = sorted(begun.rglob("*"))
    with another_at_work(begun):
        with pytest.raises(OutputError, match=r"Another process is at work in .*run\. Allowed: to wait for its end"):
            workflow.resume(begun)
        with pytest.raises(OutputError, match="Another process is at work"):
            workflow.run(Recipe.read(begun / "recipe.toml"), output=begun, overwrite=True)
    assert sorted(begun.rglob("*")) == files, "nothing was deleted, and no lock stays"


def test_a_new_folder_in_which_another_process_has_begun_is_refused(tmp_path):
    folder = tmp_path / "new"
    assert output_folder.create(folder, overwrite=False)
    with another_at_work(folder), pytest.raises(OutputError, match="Another process is at work"):
        workflow.run(Recipe(model="shallow_cnn", data=("phantom",)), output=folder)
    assert folder.is_dir(), "it is the other's"


def test_the_lock_of_a_process_that_was_killed_is_none(tmp_path):
    (tmp_path / output_folder.LOCK).touch()
    assert not output_folder.create(tmp_path, overwrite=False), "nothing else is there"
    with output_folder.alone(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_what_is_left_of_a_run_that_was_half_deleted_is_still_a_run(begun, monkeypatch):
    deleted = []

    def killed(path, **_):
        deleted.append(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(output_folder.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        output_folder.clear(begun)
    assert deleted
    assert is_run(begun)
    monkeypatch.undo()
    assert not output_folder.create(begun, overwrite=True)
    output_folder.clear(begun)
    assert not list(begun.iterdir())
