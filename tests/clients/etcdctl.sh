# etcdctl.sh PORT: a session with etcdctl. Prints what etcdctl prints; fields that differ between any two servers
# (versions, sizes, raft positions, times) are cut.
unset ETCDCTL_BIN
export ETCDCTL_ENDPOINTS=127.0.0.1:$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
run() {
    echo "\$ etcdctl $*"
    timeout 20 "$ETCDCTL" "$@" 2>&1
    echo "= $?"
}
fed() { local input=$1; shift; echo "\$ etcdctl $* <<< $(printf '%q' "$input")"; printf '%b' "$input" | timeout 20 "$ETCDCTL" "$@" 2>&1; echo "= $?"; }

run put a 1
run put a 2 --prev-kv
run put -w json b 3
run put -w fields c 4
run put c --ignore-value --prev-kv
run put none --ignore-value
run put lost 1 --lease=1234
run get a
run get a -w json
run get a -w fields
run get '' --prefix
run get '' --prefix --keys-only
run get '' --prefix --count-only -w fields
run get '' --prefix --limit 2 -w json
run get a z --order DESCEND --sort-by MODIFY
run get b --from-key --print-value-only
run get a --rev 2
run get a --rev 99
run get '' --prefix --consistency s
run del none
run del a --prev-kv
run del b c --prev-kv
run del '' --prefix
run get a --rev 3
fed 'value("t") = "1"\n\nput t yes\n\nput t no\nget t\n\n' txn
fed 'version("t") > "0"\nmod("t") < "999"\n\nput t yes\nget t\n\ndel t\n\n' txn
fed 'create("none") = "0"\n\nput x 1\nput x 2\n\n\n' txn
run compaction 5
run compaction 5
run compaction 999
run get a --rev 3
run endpoint hashkv
run lease grant 100 -w fields | grep -v '"ID"'
id=$("$ETCDCTL" lease grant 600 | sed 's/lease \([0-9a-f]*\) granted.*/\1/')
hide() { sed "s/$id/LEASE/g; s/remaining([0-9]*s)/remaining(Ns)/"; }
run put leased 1 --lease="$id" | hide
run lease timetolive "$id" --keys | hide
run lease keep-alive --once "$id" | hide
run lease revoke "$id" | hide
run lease timetolive "$id" | hide
run lease revoke "$id" | hide
run get leased
run member list
run member list -w json
run member remove 77
run member promote b71f75320dc06a6c
run member add other --peer-urls=nonsense
run endpoint health | sed 's/took = .*/took/'
run alarm list
run alarm disarm
run defrag | sed 's/took.*/took/'
run move-leader 77
run auth status
run user list
run role get none
run snapshot save "$scratch/db" | grep -vE 'ts|size|Snapshot saved' | sed "s#$scratch##"
timeout 5 "$ETCDCTL" watch w --prefix --prev-kv >"$scratch/watch" 2>&1 &
sleep 1
for value in 1 2; do "$ETCDCTL" put w/a "$value" >/dev/null; done
"$ETCDCTL" del w/a >/dev/null
revision=$("$ETCDCTL" get w/a -w json | sed 's/.*"revision":\([0-9]*\).*/\1/')
sleep 0.5
echo '$ etcdctl watch w --prefix --prev-kv'
cat "$scratch/watch"
echo "\$ etcdctl watch w/a --rev $((revision - 2))"
timeout 2 "$ETCDCTL" watch w/a --rev "$((revision - 2))" 2>&1
echo '$ etcdctl watch w/a --rev 2'
timeout 2 "$ETCDCTL" watch w/a --rev 2 2>&1 | sed -E 's/"ts":"[^"]*"//'
wait
echo '$ etcdctl lock l echo'
timeout 10 "$ETCDCTL" lock l -- echo held 2>&1
echo "= $?"
(timeout 5 "$ETCDCTL" elect e first >"$scratch/elect" 2>&1 &)
sleep 1
timeout 2 "$ETCDCTL" elect -l e 2>&1 | sed 's#/[0-9a-f]*$#/LEASE#'
sed 's#/[0-9a-f]*$#/LEASE#' "$scratch/elect"
run get '' --from-key --keys-only --limit 20
