"""Checks that a plugin's module is fast to import, since `chestxray models` imports all of them."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from chestxray.testing.fresh_process import FreshProcess
from chestxray.testing.results import CheckFailed, CheckSkipped

#: Seconds that importing a plugin may take, after the imports that every plugin needs.
IMPORT_SECONDS = 1.0
#: Timeout of an import in seconds.
GIVE_UP_SECONDS = 60.0


def module_of(function: Any) -> str:
    """Return the name of the module that defines `function`, also if it is wrapped in a `functools.partial`."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(inspect.unwrap(function), "__module__", "") or ""


def require_light_import(process: FreshProcess, module: str, beyond: str) -> None:
    """Import `module` in the fresh process, and check that the import is fast and offline.

    `beyond` names, for messages, what the process has imported before.

    Raises:
        CheckFailed: the import fails, touches the network or takes too long.
        CheckSkipped: another process cannot import the module by name.
    """
    if module in ("", "__main__"):
        raise CheckSkipped("the plugin is in no module that can be imported by name")
    process.ask("ready")  # otherwise the time of the preloading would be counted
    answer = process.ask("importing", module=module, seconds=GIVE_UP_SECONDS)
    if answer["missing"]:
        raise CheckSkipped(f"the module {module} cannot be imported by name in another process")
    if answer["touched"]:
        raise CheckFailed(
            f"importing {module} touches the network ({answer['touched'][0]})",
            "fetch what is needed in build, when weights are asked for",
        )
    if answer["error"]:
        raise CheckFailed(f"importing {module} alone fails: {answer['error']}")
    if answer["heavy"]:
        raise CheckFailed(
            f"importing {module} imports {', '.join(answer['heavy'])}, for which every listing of models waits",
            "import them in the functions that use them. keras is deferred: import keras, or from keras import "
            "layers, ops and the like, use it in functions alone, and derive no class from it",
        )
    if answer["seconds"] > IMPORT_SECONDS:
        raise CheckFailed(
            f"importing {module} takes {answer['seconds']:.1f} s beyond {beyond}. Allowed: {IMPORT_SECONDS:g} s",
            "import heavy libraries in the functions that use them",
        )
