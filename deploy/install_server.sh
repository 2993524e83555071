#!/usr/bin/env sh
# Installs what `chestxray serve model.onnx` needs, and nothing else, into a new virtual environment.
# chestxray itself asks for TensorFlow, which an ONNX file does without: hence --no-deps.
#
#     deploy/install_server.sh DIRECTORY          with $PYTHON, or python3
set -eu
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" -m venv "$1"
"$1/bin/pip" install --no-cache-dir --disable-pip-version-check --no-deps --requirement deploy/server-requirements.txt
"$1/bin/pip" install --no-cache-dir --disable-pip-version-check --no-deps .
"$1/bin/pip" uninstall --quiet --yes pip
