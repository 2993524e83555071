import subprocess
import sys


def test_tensorflow_starts_in_silence_and_other_words_are_passed_on():
    code = (
        "import os; from chestxray.models import startup; startup.start(); import sys\n"
        "assert 'keras' in sys.modules and 'tensorflow' in sys.modules\n"
        "with startup._greetings_dropped():\n"
        "    os.write(2, b'I0000 00:00 greeting\\nsomething is wrong\\n')\n"
    )
    environment = {k: v for k, v in __import__("os").environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=400)
    assert (result.returncode, result.stderr) == (0, "something is wrong\n")
