import json
import subprocess
import sys

import pytest

HEAVY = ("tensorflow", "keras", "scipy", "pandas", "matplotlib", "datasets", "sklearn")


def loaded_after(*arguments):
    code = (
        "import sys, json, runpy\n"
        f"sys.argv = ['chestxray', *{list(arguments)!r}]\n"
        "from chestxray.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        f"print(json.dumps([code, [m for m in {HEAVY!r} if m in sys.modules]]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    return json.loads(result.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["models"], ["models", "--json"], ["recipes"], ["run", "--help"], ["--version"], ["nonsense"]],
)
def test_nothing_heavy_is_imported(arguments):
    code, heavy = loaded_after(*arguments)
    assert heavy == []
    assert code == (2 if arguments == ["nonsense"] else 0)


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, chestxray; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_every_command_is_there_and_explains_itself():
    from click.testing import CliRunner

    from chestxray.cli.main import COMMANDS, group

    for name in COMMANDS:
        result = CliRunner().invoke(group, [name, "--help"])
        assert result.exit_code == 0, result.output
        assert "Usage" in result.output


def test_models_lists_what_a_user_chooses_by():
    from click.testing import CliRunner

    from chestxray.cli.main import group

    found = {m["name"]: m for m in json.loads(CliRunner().invoke(group, ["models", "--json"]).output)}
    assert found["shallow_cnn"]["distribution"] == "chestxray-baselines"
    assert found["shallow_cnn"]["weights"] == []
    assert found["inceptionv3"]["minimum_size"] == [75, 75]


@pytest.mark.parametrize("end", [EOFError("no end"), KeyboardInterrupt()], ids=["file", "key"])
def test_a_file_that_ends_too_early_is_not_taken_for_a_key(monkeypatch, capsys, end):
    import click

    from chestxray.cli import main

    @click.command()
    def ends():
        raise end

    monkeypatch.setattr(main, "group", ends)
    monkeypatch.setattr(sys, "argv", ["chestxray"])
    with pytest.raises(EOFError if isinstance(end, EOFError) else SystemExit):
        main.main()
    assert ("Stopped by Ctrl-C" in capsys.readouterr().err) == isinstance(end, KeyboardInterrupt)


@pytest.mark.parametrize("command", [["evaluate"], ["predict"], ["compare", "runs/a"], ["export", "--format", "onnx"]])
def test_a_name_that_is_too_long_is_one_line(monkeypatch, capsys, tmp_path, command):
    from chestxray.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["chestxray", "--quiet", *command, "n" * 300, *(["x.png"] * (command[0] == "predict"))]
    )
    with pytest.raises(SystemExit) as error:
        main()
    said = capsys.readouterr().err
    assert error.value.code == 2
    assert len(said.splitlines()) == 1
    assert "too long" in said or "is no" in said
