#!/usr/bin/env sh
# Installs what `chestxray serve model.onnx` needs into a new virtual environment: the extra `serve`, in the
# versions of server-requirements.txt.
#
#     deploy/install_server.sh DIRECTORY          with $PYTHON, or python3
set -eu
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" -m venv "$1"
"$1/bin/pip" install --no-cache-dir --disable-pip-version-check --constraint deploy/server-requirements.txt '.[serve]'
"$1/bin/pip" uninstall --quiet --yes pip
