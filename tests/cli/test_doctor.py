"""`chestxray doctor`: facts fit for a bug report, and what is wrong found in installations and machines that are."""

import getpass
import importlib
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from chestxray.cli.diagnosis import installation, machine, page, privacy, probes, problems
from chestxray.cli.main import group

#: As `examine` returns it where nothing is wrong.
SOUND = {
    "versions": {"chestxray": "1"},
    "damaged": [],
    "requirements": [],
    "extras": {"train": []},
    "plugins": [{"kind": "model", "name": "a", "distribution": "one", "version": "1", "broken": ""}],
    "machine": {
        "processor": "p", "processors": 4, "processors_usable": 4, "avx": True, "memory": 8e9, "memory_available": 4e9,
        "memory_limit": None, "nvidia_devices": 0, "limits": {"open files": 1024}, "locale": "en_GB.UTF-8",
        "encoding": "utf-8", "output_encoding": "utf-8", "time": "2026-02-01T00:00:00Z",
        "installed": "2026-01-01T00:00:00Z",
    },
    "settings": {},
    "folders": {
        "cache": {"path": "/c", "filesystem": "ext4", "trouble": "", "free": 50e9, "size": 90e9, "files_free": 10**6},
        "shared memory": {"path": "/dev/shm", "filesystem": "tmpfs", "trouble": "", "free": 8e9, "size": 9e9},
    },
    "probes": {
        "tensorflow": {"error": "", "devices": ["CPU"], "computes": True, "cuda": False},
        "keras": {"error": "", "backend": "tensorflow", "computes": True},
        "packages": {"error": "", "broken": {}},
    },
}  # fmt: skip


def changed(facts, place, value):
    """`facts` with the value at `place`, keys joined by `/`, replaced."""
    key, _, rest = place.partition("/")
    return {**facts, key: changed(facts[key], rest, value) if rest else value}


def doctor(*arguments, environment=None):
    command = [sys.executable, "-c", "from chestxray.cli.main import main; main()", "doctor", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **(environment or {})}
    )


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """Those of this machine, by the command itself."""
    done = doctor("--json", "--cache", tmp_path_factory.mktemp("cache"), "--timeout", 250)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert done.returncode == bool(found["problems"]), found["problems"]
    return found


def test_it_tells_versions_devices_plugins_extras_and_folders(facts):
    import keras
    import numpy as np
    import tensorflow as tf

    assert facts["versions"]["tensorflow"] == tf.__version__ and facts["versions"]["keras"] == keras.__version__
    assert facts["versions"]["numpy"] == np.__version__
    assert len([device for device in facts["probes"]["tensorflow"]["devices"] if device.startswith("CPU")]) == 1
    assert facts["probes"]["keras"] == {"error": "", "backend": "tensorflow", "computes": True}
    assert facts["probes"]["packages"] == {"error": "", "broken": {}}
    models = {plugin["name"]: plugin["distribution"] for plugin in facts["plugins"] if plugin["kind"] == "model"}
    assert models["shallow_cnn"] == "chestxray-baselines"
    assert set(facts["extras"]) >= {"dicom", "excel", "export", "report", "serve", "train"}
    assert facts["extras"]["train"] == [] and facts["machine"]["memory"] > 0
    assert facts["machine"]["processors_usable"] <= facts["machine"]["processors"]
    text = "\n".join(page.lines(facts))
    for word in ("Versions", "Devices", "Machine", "Folders", "Plugins", "Extras", tf.__version__, "shallow_cnn"):
        assert word in text


def test_the_command_itself_imports_nothing_heavy():
    heavy = ("tensorflow", "keras", "jax", "scipy", "pandas", "sklearn")
    code = (
        "import sys\nfrom chestxray.cli.diagnosis import examine, installation\n"
        "installation.plugins = lambda seconds: []\n"
        f"examine(None, None, 1)\nprint([name for name in {heavy!r} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_sound_installation_has_no_problem():
    assert problems.find(SOUND) == []
    assert next(page.lines(SOUND | {"problems": []})) == "No problem found."


@pytest.mark.parametrize(
    ("place", "value", "word"),
    [
        ("damaged", [{"path": "/s/x-1.dist-info", "why": "ValueError: y"}], "/s/x-1.dist-info cannot be read"),
        (
            "requirements",
            [{"by": "tf-keras-vis 1", "asked": "scipy<2", "found": "2.0"}],
            "scipy<2, and 2.0 is",
        ),
        ("requirements", [{"by": "tensorflow 2", "asked": "protobuf<7", "found": ""}], "it is not installed"),
        ("versions", {"tensorflow": "1", "tensorflow-cpu": "1"}, "both installed"),
        ("extras", {}, "from its sources"),
        ("plugins", [{**SOUND["plugins"][0], "broken": "The plugin one:a is broken."}], "one:a is broken"),
        ("plugins", [SOUND["plugins"][0], {**SOUND["plugins"][0], "distribution": "two"}], "claimed by one and two"),
        ("machine/avx", False, "no AVX"),
        ("machine/memory_available", 1e9, "1.0 GB of memory"),
        ("machine/memory_limit", 10**9, "1.0 GB of memory"),
        ("machine/limits", {"open files": 64}, "64 files"),
        ("machine/encoding", "ascii", "not UTF-8"),
        ("machine/time", "1970-01-01T00:00:05Z", "before chestxray was installed"),
        ("machine/nvidia_devices", 2, "neither TensorFlow nor JAX sees one"),
        ("settings/KERAS_BACKEND", "torch", "works with tensorflow and jax"),
        ("settings/TF_USE_LEGACY_KERAS", "1", "Keras 2"),
        ("folders/cache/trouble", "Read-only file system", "Read-only file system"),
        ("folders/cache/free", 3e6, "has 3 MB left"),
        ("folders/cache/files_free", 7, "only 7 more files"),
        ("folders/shared memory/free", 4096, "Shared memory"),
        ("probes/tensorflow", {"error": "it ended its process by SIGILL"}, "SIGILL"),
        ("probes/tensorflow/computes", False, "wrong sum"),
        ("probes/packages/broken", {"pandas": "ImportError: numpy.core"}, "pandas cannot be imported"),
        ("probes/packages", {"error": "it ended its process by SIGSEGV"}, "SIGSEGV"),
    ],
)
def test_what_is_wrong_is_said_with_a_remedy(place, value, word):
    found = problems.find(changed(SOUND, place, value))
    assert any(word in problem["what"] for problem in found), found
    assert all(problem["remedy"] for problem in found)
    assert f"! {found[0]['what']}" in "\n".join(page.lines(changed(SOUND, place, value) | {"problems": found}))


def test_hidden_gpus_are_no_problem():
    hidden = changed(changed(SOUND, "machine/nvidia_devices", 1), "settings/CUDA_VISIBLE_DEVICES", "-1")
    assert problems.find(hidden) == []


def test_a_keras_backend_that_does_not_work_is_found():
    done = doctor("--json", "--timeout", 250, environment={"KERAS_BACKEND": "nonsense"})
    found = json.loads(done.stdout)
    assert done.returncode == 1
    told = [problem["what"] for problem in found["problems"]]
    assert any("Keras does not work with KERAS_BACKEND=nonsense: ValueError" in what for what in told), told
    assert not any("TensorFlow does not work" in what for what in told)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "it ended its process by SIGILL"),
        ("import os; os._exit(3)", "it ended with status 3"),
        ("import os; os._exit(0)", "it ended with status 0"),
        ("raise RuntimeError('no driver')", "RuntimeError: no driver"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("import time; time.sleep(1000)", "it did not answer in time"),
    ],
)
def test_a_driver_that_is_broken_is_told_and_ends_nothing(tmp_path, monkeypatch, code, told):
    (tmp_path / "jax.py").write_text(f"print('noise')\n{code}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(probes, "PROBES", {"jax": ("jax",)})
    importlib.invalidate_caches()
    start = time.monotonic()
    with probes.started(3 if "sleep" in code else 200) as answers:
        assert answers() == {"jax": {"error": told}}
    assert time.monotonic() - start < 100


def test_a_version_that_is_not_asked_for_is_found(tmp_path, monkeypatch):
    def lay(name, version, *needs, extra=""):
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {n}" for n in needs)]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        if extra:
            (info / "entry_points.txt").write_text(extra)

    lay("strange-net", "1.0", "old-science<2", "absent-one>=1", "not-here; python_version < '3'",
        extra="[chestxray.models]\nstrange = strange:plugin\n")  # fmt: skip
    lay("old_science", "2.1")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    found = [item for item in installation.unmet() if item["by"] == "strange-net 1.0"]
    assert found == [
        {"by": "strange-net 1.0", "asked": "absent-one>=1", "found": ""},
        {"by": "strange-net 1.0", "asked": "old-science<2", "found": "2.1"},
    ]


def test_an_extra_of_which_something_is_missing_says_what(tmp_path, monkeypatch):
    info = tmp_path / "chestxray-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: chestxray\nVersion: 0\nProvides-Extra: small\nProvides-Extra: large\n"
        "Requires-Dist: numpy>=1\nRequires-Dist: numpy>=900; extra == 'small'\n"
        "Requires-Dist: chestxray[small]; extra == 'large'\nRequires-Dist: nowhere; extra == 'large'\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    assert installation.extras() == {"large": ["numpy>=900", "nowhere"], "small": ["numpy>=900"]}


def test_neither_home_nor_user_is_told(monkeypatch):
    monkeypatch.setenv("HOME", "/home/jane.doe")
    monkeypatch.setattr(getpass, "getuser", lambda: "jane.doe")
    told = {"a": ["/home/jane.doe/cache", "No /home/jane.doe: /scratch/jane.doe/x.", "/home/jane.doebert", 7]}
    assert privacy.without_user(told) == {"a": ["~/cache", "No ~: /scratch/USER/x.", "/home/jane.doebert", 7]}
    monkeypatch.setattr(getpass, "getuser", lambda: (_ for _ in ()).throw(KeyError("no entry")))
    assert privacy.without_user("/scratch/jane.doe") == "/scratch/jane.doe"


def test_the_page_names_no_user_no_data_and_no_secret(tmp_path, monkeypatch):
    home = tmp_path / "jane.doe"
    (home / "cache" / "decoded").mkdir(parents=True)
    (home / "cache" / "decoded" / "Mueller_Hans_1950.npy").write_bytes(b"0" * 1000)
    (home / "cache" / "CHESTXRAY_CACHE.txt").write_text("This is one.")
    environment = {
        "HOME": str(home), "USER": "jane.doe", "LOGNAME": "jane.doe", "CHESTXRAY_CACHE": str(home / "cache"),
        "HF_TOKEN": "secret-token", "https_proxy": "http://jane:secret-word@proxy", "CHESTXRAY_REAL_DATA": "/mnt/x",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(probes, "PROBES", {})
    result = CliRunner().invoke(group, ["doctor", "--output", str(home / "runs")])
    assert "~/cache" in result.output and "~/runs" in result.output
    for word in ("jane.doe", "Mueller", "secret", "proxy", "/mnt/x"):
        assert word not in result.output


def test_a_cache_that_cannot_be_used_is_a_problem_and_no_traceback(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    found = machine.folders(tmp_path / "file", tmp_path / "file" / "run")
    assert found["cache"]["trouble"] and found["output"]["trouble"].endswith("file is a file")
    address = machine.folders("s3://key:secret@bucket/cache", None)["cache"]
    assert address == {"path": "s3://...", "filesystem": "remote", "trouble": ""}
    assert machine.folders(tmp_path, "s3://key:secret@bucket/run")["output"] == address
    monkeypatch.setenv("CHESTXRAY_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(probes, "PROBES", {})
    monkeypatch.setattr(installation, "plugins", lambda seconds: [])
    result = CliRunner().invoke(group, ["doctor"])
    assert result.exit_code == 1 and "the cache folder" in result.output


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_without_rights_is_a_problem(tmp_path):
    (tmp_path / "locked").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    assert "denied" in machine.folders(tmp_path / "locked", None)["cache"]["trouble"]


def test_files_of_the_cache_are_counted_up_to_a_number(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "COUNTED", 3)
    for number in range(5):
        (tmp_path / f"{number}.npy").write_bytes(b"12")
    (tmp_path / "CHESTXRAY_CACHE.txt").write_text("")
    found = machine.folders(tmp_path, None)["cache"]
    assert found["files"] == 3
    assert "at least 3 files" in "\n".join(page.lines(changed(SOUND, "folders/cache", found) | {"problems": []}))


def test_the_filesystem_of_a_folder_is_that_of_its_mount():
    if not Path("/proc/self/mountinfo").is_file():
        pytest.skip("this system has no list of mounts")
    assert machine.folders("/proc", None)["output"]["filesystem"]
    assert machine._filesystem(Path("/proc/self")) == "proc"
