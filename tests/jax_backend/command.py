"""Runs `chestxray` where TensorFlow cannot be imported, with the arguments that it is given."""

import runpy
import sys


class WithoutTensorFlow:
    """As where it is not installed: an import of it fails."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


# Not `sys.modules["tensorflow"] = None`: Keras takes what is named there for loaded.
sys.meta_path.insert(0, WithoutTensorFlow())

runpy.run_module("chestxray.cli.main", run_name="chestxray.cli.main")["main"]()
