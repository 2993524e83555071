#!/usr/bin/env sh
# Runs a command as near to deploy/kubernetes/deployment.yaml as is possible without a container: process 1 of its own
# namespaces, on a read-only file system with 64 MB of writable /dev/shm, without capabilities and new privileges, as
# user $RUN_AS (10001) if started by root.
#
#     deploy/run_confined.sh chestxray serve model.onnx --workers 2        Linux, util-linux
set -eu
if [ "$(id -u)" = 0 ]; then
    namespaces=
    become="setpriv --reuid ${RUN_AS:-10001} --regid ${RUN_AS:-10001} --clear-groups"
else
    namespaces="--user --map-root-user"
    become="setpriv"
fi
export BECOME="$become"
# shellcheck disable=SC2086
exec unshare $namespaces --mount --pid --fork --kill-child --mount-proc sh -euc '
    mount -t tmpfs -o size=64m,mode=1777,nosuid,nodev,noexec tmpfs /dev/shm
    # Each mount is made read-only for this namespace alone.
    while read -r _ place _; do
        case "$place" in /proc*|/sys*|/dev|/dev/*) ;; *) mount -o remount,bind,ro "$place" ;; esac
    done < /proc/self/mounts
    exec $BECOME --no-new-privs --inh-caps=-all --bounding-set=-all -- "$@"
' confined "$@"
