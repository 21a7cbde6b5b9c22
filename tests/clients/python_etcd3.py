"""python_etcd3.py PORT: a session with the Python library `etcd3`; prints what it answers."""
import sys
import threading
import time

import etcd3
from etcd3 import transactions as t

client = etcd3.client(host="127.0.0.1", port=int(sys.argv[1]), timeout=10)


def show(what, value):
    print(f"{what}: {value!r}")


def meta(metadata):
    return None if metadata is None else (
        metadata.key, metadata.create_revision, metadata.mod_revision, metadata.version, metadata.lease_id,
        metadata.response_header.revision)


def attempt(what, call):
    try:
        show(what, call())
    except Exception as problem:  # the kind and the words are what is compared
        show(what, (type(problem).__name__, str(problem)[:300]))


client.put("a", "1")
show("put", client.put("a", "2", prev_kv=True).prev_kv.value)
value, metadata = client.get("a")
show("get", (value, meta(metadata)))
show("missing", client.get("none"))
for index in range(5):
    client.put(f"p/{index}", str(9 - index))
show("prefix", [(value, meta(m)) for value, m in client.get_prefix("p/")])
show("by value", [value for value, _ in client.get_prefix("p/", sort_order="ascend", sort_target="value")])
show("keys only", [(value, m.key) for value, m in client.get_prefix("p/", keys_only=True)])
show("range", [value for value, _ in client.get_range("p/1", "p/4")])
show("response", client.get_prefix_response("p/").count)
show("put if new", (client.put_if_not_exists("n", "1"), client.put_if_not_exists("n", "2")))
show("replace", (client.replace("n", "1", "3"), client.replace("n", "1", "4")))
show("delete", (client.delete("n"), client.delete("n")))
show("delete prefix", client.delete_prefix("p/").deleted)
succeeded, responses = client.transaction(
    compare=[t.Value("a") == "2", t.Version("a") > 1, t.Mod("none") == 0],
    success=[t.Put("a", "3"), t.Get("a"), t.Delete("gone")],
    failure=[t.Get("a")])
show("txn", (succeeded, [response if not isinstance(response, list) else [(v, meta(m)) for v, m in response]
                         for response in responses][1]))
succeeded, _ = client.transaction(compare=[t.Create("a") == 0], success=[], failure=[t.Put("a", "4")])
show("txn else", succeeded)
show("get", client.get("a")[0])

events, cancel = client.watch_prefix("w/")
seen = []
reader = threading.Thread(target=lambda: [seen.append(event) or (len(seen) == 3 and cancel()) for event in events])
reader.start()
time.sleep(0.3)
client.put("w/a", "1")
client.put("w/b", "2")
client.delete("w/a")
reader.join(10)
show("watched", [(type(event).__name__, event.key, event.value, event.mod_revision, event.version) for event in seen])

lease = client.lease(100, lease_id=4711)
client.put("leased", "1", lease=lease)
show("lease", (lease.id, lease.granted_ttl, lease.remaining_ttl >= 98, lease.keys))
show("refresh", [(answer.ID, answer.TTL) for answer in lease.refresh()])
attempt("lease again", lambda: client.lease(100, lease_id=4711))
lease.revoke()
show("after revoke", client.get("leased"))
attempt("unknown lease", lambda: client.put("x", "1", lease=4712))

with client.lock("lock", ttl=10) as lock:
    show("locked", lock.is_acquired())
show("released", len(list(client.get_prefix("/locks/"))))

client.compact(5, physical=True)
attempt("compact again", lambda: client.compact(5))
attempt("future", lambda: client.compact(10_000))
show("members", [(member.id, member.name, member.peer_urls) for member in client.members])
show("alarms", list(client.list_alarms()))
show("hash", client.hash() is not None)
client.defragment()
show("status", client.status().leader.id)
show("revision", client.get("a")[1].response_header.revision)
