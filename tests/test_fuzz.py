"""The fuzzer can fail: it finds defects that are planted, tells the number, and the number repeats them."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fuzz.__main__ import TARGETS, main
from fuzz.running import Target, run


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("raises", "ValueError: planted"),
        ("interrupts", "KeyboardInterrupt"),
        ("stops", "ended the process: status 0"),
        ("hangs", "hangs (6 s)"),
        ("takes_memory", "bytes; 100,000,000 are allowed"),
        ("is_slow", "s; 0.1 are allowed"),
    ],
)
def test_a_planted_defect_is_found_and_its_number_repeats_it(name, told):
    # The start of a process counts for its first case: only where slowness is planted is the bound near it.
    target = Target(name, f"planted_defects:{name}", seconds=0.1 if name == "is_slow" else 5, bytes=100_000_000)
    silence = 6 if name == "hangs" else 120
    outcome = run(target, 0, 600, cases=12, silence=silence)
    assert outcome.findings
    assert outcome.cases == 12
    # Too slow and too large are seen when a case is done.
    ended = name in ("takes_memory", "is_slow")
    assert outcome.refused["DataError"] == 12 - (0 if ended else len(outcome.findings))
    seed = outcome.findings[-1][0]
    # What is large may be slow too.
    assert any(told in what for number, what in outcome.findings if number == seed)
    again = run(target, seed, 600, cases=1, silence=silence)
    assert {number for number, _ in again.findings} == {seed}


def test_a_finding_is_printed_with_the_command_that_repeats_it(capsys):
    target = Target("raises", "planted_defects:raises")
    assert main(["--cases", "20"], (target,)) == 1
    out = capsys.readouterr().out
    seed = re.search(r"--target raises --seed (\d+) --cases 1", out)[1]
    assert "ValueError: planted" in out
    assert main(["--seed", seed, "--cases", "1"], (target,)) == 1
    sound = Target("sound", "planted_defects:sound")
    assert main(["--cases", "20"], (sound,)) == 0


def test_what_cannot_be_prepared_is_no_success(capsys):
    assert main(["--cases", "1"], (Target("absent", "planted_defects:absent"),)) == 1
    assert "was not prepared" in capsys.readouterr().out
    assert main(["--require"], (Target("lacks", "planted_defects:sound", needs=("nowhere_to_be_found",)),)) == 1


def test_every_target_reads_what_it_made(capsys):
    """Two cases of each that needs nothing beyond the package: none is dead."""
    names = ("images", "tables", "findings", "cached", "installations", "recipes", "weights")
    assert main(["--cases", "2"], tuple(target for target in TARGETS if target.name in names)) == 0
    assert capsys.readouterr().out.count("2 cases, 0 findings") == len(names)


def test_a_case_that_hangs_ends_with_a_fuzzer_that_is_killed():
    code = (
        "from fuzz.running import Target, run; run(Target('hangs', 'planted_defects:hangs'), 0, 600, 600, silence=600)"
    )
    told = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}; {code}"
    with subprocess.Popen([sys.executable, "-c", told]) as fuzzer:
        try:
            worker = _wait_for(Path(f"/proc/{fuzzer.pid}/task/{fuzzer.pid}/children").read_text).strip()
            # It works in a folder of its own, and there all cases but the one that hangs take no time.
            _wait_for(lambda: Path(f"/proc/{worker}/cwd").readlink().name.startswith("fuzz-"))
            _wait_for(lambda: ") S " in Path(f"/proc/{worker}/stat").read_text())
        finally:
            fuzzer.kill()
    _wait_for(lambda: not Path(f"/proc/{worker}/cmdline").is_file() or not Path(f"/proc/{worker}/cmdline").read_text())


def _wait_for(found, seconds=60):
    until = time.monotonic() + seconds
    while not (what := found()) and time.monotonic() < until:
        time.sleep(0.05)
    assert what
    return what
