#!/usr/bin/env bash
# capture.sh OPERATIONS > GOLDEN: carries out a list of operations on a real etcd and notes each HashKV.
#
#   ETCD_BIN=/usr/bin/etcd ETCDCTL_BIN=/usr/bin/etcdctl tests/golden/hashkv/capture.sh lives.ops > lives.golden
#
# Operations, one to a line: `put KEY VALUE`, `delete KEY [END]`, `compact REVISION` (waits for the deletion),
# `restart`, and `hash REVISION` (0 for the current one), which becomes `hash REVISION HASH COMPACT_REVISION`.
set -euo pipefail
operations=${1:?usage: capture.sh OPERATIONS}
dir=$(mktemp -d)
client=$((20000 + RANDOM % 20000)); peer=$((client + 1))
export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=http://127.0.0.1:$client
server=

start() {
  "$etcd" --data-dir "$dir" --log-level error --initial-cluster "default=http://127.0.0.1:$peer" \
    --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
    --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" >&2 &
  server=$!
  for _ in $(seq 100); do ctl endpoint health >/dev/null 2>&1 && return; sleep 0.1; done
  echo "etcd did not start" >&2; exit 1
}
stop() { kill "$server"; wait "$server" || true; }
etcd=${ETCD_BIN:-etcd} etcdctl=${ETCDCTL_BIN:-etcdctl}
unset ETCD_BIN ETCDCTL_BIN  # etcd would take them for its own
ctl() { "$etcdctl" "$@" 2>/dev/null; }
trap 'stop; rm -rf "$dir"' EXIT

start
while read -r operation first second; do
  case $operation in
    put) ctl put "$first" "$second" >/dev/null; echo "put $first $second" ;;
    delete) ctl del "$first" ${second:+"$second"} >/dev/null; echo "delete $first${second:+ $second}" ;;
    compact) ctl compact --physical "$first" >/dev/null; echo "compact $first" ;;
    restart) stop; start; echo restart ;;
    hash)
      answer=$(ctl endpoint hashkv --rev "$first" -w json)
      hash=$(sed -n 's/.*"hash":\([0-9]*\).*/\1/p' <<<"$answer")
      compacted=$(sed -n 's/.*"compact_revision":\(-\{0,1\}[0-9]*\).*/\1/p' <<<"$answer")
      echo "hash $first ${hash:-0} ${compacted:-0}" ;;
  esac
done < "$operations"
