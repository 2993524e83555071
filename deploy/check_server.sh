#!/usr/bin/env sh
# Does in a temporary folder what the Dockerfile does, and tries what came out: nothing of TensorFlow is
# in it, it starts, and it answers an image.
#
#     deploy/check_server.sh model.onnx           with $PYTHON, or python3
set -eu
model=$(realpath "$1")
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$root/deploy/install_server.sh" "$folder/venv" >/dev/null
du -sm "$folder/venv" | awk '{print "installed: " $1 " MB"}'
cd "$folder"
"$folder/venv/bin/python" "$root/deploy/try_server.py" "$folder/venv/bin/chestxray" "$model"
