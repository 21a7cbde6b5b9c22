#!/usr/bin/env python3
"""Captures what an etcd makes of a few hundred requests: its log entries, and every bucket of its database afterwards.

    ETCD_BIN=/path/to/etcd ./capture.py > etcd-3.5.30.txt

`apply` is then fed the entries and has to arrive at the same bytes (`src/apply/tests/golden.rs`). Lines are
`entry INDEX TERM TYPE DATA` and `pair BUCKET KEY VALUE`, data in hexadecimal.
"""
import base64, json, os, random, signal, socket, struct, subprocess, tempfile, time, urllib.error, urllib.request

dice = random.Random(7)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def b64(text):
    return base64.b64encode(text.encode()).decode()


def call(base, path, body):
    request = urllib.request.Request(base + path, json.dumps(body).encode())
    try:
        return json.load(urllib.request.urlopen(request, timeout=10))
    except urllib.error.HTTPError as error:
        return json.load(error)


def key():
    return b64(dice.choice("abcdefgh") * dice.randint(1, 3))


def put():
    request = {"key": key(), "value": b64("v" * dice.randint(0, 9))}
    if dice.random() < 0.3:
        request["lease"] = str(dice.randint(1, 7))
    if dice.random() < 0.2:
        request["prev_kv"] = True
    if dice.random() < 0.15:
        request["ignore_value"] = True
        del request["value"]
    elif dice.random() < 0.15:
        request["ignore_lease"] = True
        request.pop("lease", None)
    return request


def delete(ends=None):
    request = {"key": key()}
    if dice.random() < 0.5:
        request["range_end"] = dice.choice(ends or [key(), b64("\0")])
    return request


def txn(depth=0):
    def op():
        kind = dice.randint(0, 5 if depth < 2 else 4)
        if kind < 2:
            return {"request_put": put()}
        if kind < 4:
            # An open end and, in the same transaction, a put that keeps a value would end etcd 3.5.30 with a panic.
            return {"request_delete_range": delete([key()])}
        return {"request_range": {"key": key()}} if kind == 4 else {"request_txn": txn(depth + 1)}

    def compare():
        target, field = dice.choice(
            [("VERSION", "version"), ("CREATE", "create_revision"), ("MOD", "mod_revision"), ("LEASE", "lease")]
        )
        known = {"result": dice.choice(["EQUAL", "GREATER", "LESS", "NOT_EQUAL"]), "target": target, "key": key()}
        known[field] = str(dice.randint(0, 9))
        if dice.random() < 0.3:
            known["range_end"] = b64("\0")
        if dice.random() < 0.2:
            del known[field]
            known.update(target="VALUE", value=b64("v" * dice.randint(0, 3)))
        return known

    return {
        "compare": [compare() for _ in range(dice.randint(0, 2))],
        "success": [op() for _ in range(dice.randint(0, 4))],
        "failure": [op() for _ in range(dice.randint(0, 4))],
    }


def requests(base):
    for lease in range(1, 6):
        call(base, "/v3/lease/grant", {"ID": str(lease), "TTL": str(dice.choice([1, 3000, 9000]) + 3000)})
    for step in range(420):
        kind = dice.randint(0, 19)
        if kind < 8:
            call(base, "/v3/kv/put", put())
        elif kind < 11:
            call(base, "/v3/kv/deleterange", delete())
        elif kind < 17:
            call(base, "/v3/kv/txn", txn())
        elif kind == 17:
            call(base, "/v3/lease/grant", {"ID": str(dice.randint(1, 7)), "TTL": "5000"})
        elif kind == 18:
            call(base, "/v3/lease/revoke", {"ID": str(dice.randint(1, 7))})
        else:
            alarm = {"action": dice.choice(["ACTIVATE", "DEACTIVATE", "DEACTIVATE"]), "memberID": "5", "alarm": "NOSPACE"}
            call(base, "/v3/maintenance/alarm", alarm)
        if step in (120, 250):
            now = int(call(base, "/v3/kv/range", {"key": b64("x")})["header"]["revision"])
            call(base, "/v3/kv/compaction", {"revision": str(now - 9), "physical": True})
            call(base, "/v3/kv/compaction", {"revision": str(now + 99)})
        if step % 8 == 0:
            call(base, "/v3/maintenance/alarm", {"action": "DEACTIVATE", "memberID": "5", "alarm": "NOSPACE"})
    call(base, "/v3/maintenance/alarm", {"action": "ACTIVATE", "memberID": "6", "alarm": "NOSPACE"})
    add = {"peerURLs": ["http://127.0.0.1:1?a=<b>&c"], "isLearner": True}
    learner = call(base, "/v3/cluster/member/add", add)["member"]["ID"]
    call(base, "/v3/cluster/member/update", {"ID": learner, "peerURLs": ["http://127.0.0.1:2", "http://127.0.0.1:3"]})
    call(base, "/v3/cluster/member/remove", {"ID": learner})
    call(base, "/v3/cluster/member/add", {"peerURLs": ["http://127.0.0.1:4"], "isLearner": True})


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data):
    at, found = 0, {}
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 0:
            found[tag >> 3], at = varint(data, at)
        else:
            length, at = varint(data, at)
            found[tag >> 3] = data[at : at + length]
            at += length
    return found


def log_entries(directory):
    entries = {}
    for name in sorted(name for name in os.listdir(directory) if name.endswith(".wal")):
        data, at = open(os.path.join(directory, name), "rb").read(), 0
        while at + 8 <= len(data):
            frame = struct.unpack_from("<Q", data, at)[0]
            length, padding = frame & ((1 << 56) - 1), (frame >> 56) & 7
            if length == 0:
                break
            record = fields(data[at + 8 : at + 8 + length])
            at += 8 + length + padding
            if record[1] == 2:
                entry = fields(record[3])
                entries[entry[3]] = entry
    return entries


def pairs(data):
    def page(number):
        at = number * 4096
        flags, count = struct.unpack_from("<HH", data, at + 8)
        return at, flags, count

    def walk(at, flags, count):
        for index in range(count):
            if flags & 1:
                where = at + 16 + 16 * index
                position, _, child = struct.unpack_from("<IIQ", data, where)
                yield from walk(*page(child))
            else:
                where = at + 16 + 16 * index
                kind, position, key_len, value_len = struct.unpack_from("<IIII", data, where)
                start = where + position
                yield kind, data[start : start + key_len], start + key_len, value_len

    metas = []
    for number in (0, 1):
        at, _, _ = page(number)
        metas.append((struct.unpack_from("<Q", data, at + 16 + 48)[0], struct.unpack_from("<Q", data, at + 16 + 16)[0]))
    for kind, name, value, _ in walk(*page(max(metas)[1])):
        assert kind == 1
        root = struct.unpack_from("<Q", data, value)[0]
        if root:
            inside = page(root)
        else:
            flags, count = struct.unpack_from("<HH", data, value + 16 + 8)
            inside = (value + 16, flags, count)
        for _, key, start, length in walk(*inside):
            yield name.decode(), key, data[start : start + length]


def main():
    home = tempfile.mkdtemp()
    client, peer = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    command = [os.environ["ETCD_BIN"], "--data-dir", home, "--listen-client-urls", client, "--advertise-client-urls", client]
    command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                if call(client, "/v3/kv/range", {"key": b64("x")}):
                    break
            except OSError:
                time.sleep(0.1)
        time.sleep(1)
        requests(client)
        time.sleep(1)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
    stored = list(pairs(open(os.path.join(home, "member/snap/db"), "rb").read()))
    applied = next(int.from_bytes(value, "big") for bucket, key, value in stored if key == b"consistent_index")
    for index, entry in sorted(log_entries(os.path.join(home, "member/wal")).items()):
        if index <= applied:
            print("entry", index, entry[2], entry.get(1, 0), entry.get(4, b"").hex() or "-")
    for bucket, key, value in stored:
        print("pair", bucket, key.hex(), value.hex() or "-")


main()
