"""Progress is seen where somebody types, and nowhere else without being asked for."""

import subprocess
import sys

import pytest

from chestxray.progress import duration

SHOWN = """
import logging, sys
{before}
from chestxray.progress import show_if_interactive
show_if_interactive(); show_if_interactive()
logging.getLogger("chestxray.workflow").info("Training ...")
logging.getLogger("elsewhere").info("of another library")
print(len(logging.getLogger().handlers), logging.getLogger().level)
"""


def said(before):
    code = SHOWN.format(before=before)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)


@pytest.mark.parametrize(
    "session",
    ["sys.ps1 = '>>> '", "import types; sys.modules['IPython'] = types.SimpleNamespace(get_ipython=lambda: object())"],
    ids=["prompt", "notebook"],
)
def test_an_interactive_session_sees_each_line_once_on_stderr(session):
    result = said(session)
    assert result.stderr == "Training ...\n"
    assert result.stdout == "0 30\n", "the root logger has no handler, and its own level"


@pytest.mark.parametrize(
    "before",
    [
        "",
        "sys.ps1 = ''; logging.getLogger('chestxray').setLevel(logging.ERROR)",
        "sys.ps1 = ''; logging.getLogger('chestxray').addHandler(logging.NullHandler())",
    ],
    ids=["a script", "a level was set", "a handler was set"],
)
def test_a_script_and_a_user_who_set_up_logging_are_left_alone(before):
    assert said(before).stderr == ""


def test_each_cell_of_a_notebook_has_its_own_stream():
    result = said("sys.ps1 = ''")
    assert result.stderr == "Training ...\n"
    code = (
        "import io, logging, sys; sys.ps1 = ''\n"
        "from chestxray.progress import show_if_interactive\n"
        "show_if_interactive(); sys.stderr = cell = io.StringIO()\n"
        "logging.getLogger('chestxray').info('in the second cell'); print(cell.getvalue())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "in the second cell"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59, "59 s"), (100, "1 min 40 s"), (120, "2 min"), (3599, "1 h 0 min"), (4000, "1 h 7 min")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
