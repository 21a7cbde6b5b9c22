"""python_aetcd.py PORT: a session with the asynchronous Python library `aetcd`; prints what it answers."""
import asyncio
import sys

import aetcd


def show(what, value):
    print(f"{what}: {value!r}")


def kv(pair):
    return None if pair is None else (pair.key, pair.value, pair.create_revision, pair.mod_revision, pair.version, pair.lease)


async def attempt(what, call):
    try:
        show(what, await call)
    except Exception as problem:  # the kind and the words are what is compared
        show(what, (type(problem).__name__, str(problem)[:300]))


async def session(client):
    await client.put(b"a", b"1")
    answer = await client.put(b"a", b"2", prev_kv=True)
    show("put", (kv(answer.prev_kv), answer.header.revision))
    show("get", kv(await client.get(b"a")))
    show("missing", await client.get(b"none"))
    for index in range(5):
        await client.put(b"p/%d" % index, b"%d" % (9 - index))
    show("prefix", [kv(pair) for pair in await client.get_prefix(b"p/")])
    show("sorted", [pair.value for pair in await client.get_prefix(b"p/", sort_order="descend", sort_target="value")])
    show("limited", [pair.key for pair in await client.get_range(b"p/1", b"p/4")])
    show("all", len(list(await client.get_all())))
    show("replace", (await client.replace(b"a", b"2", b"3"), await client.replace(b"a", b"2", b"4")))
    deleted = await client.delete(b"p/0", prev_kv=True)
    show("delete", kv(deleted.prev_kv) if deleted else None)
    show("delete missing", await client.delete(b"p/0"))
    show("delete prefix", (await client.delete_prefix(b"p/")).deleted)
    t = client.transactions
    succeeded, responses = await client.transaction(
        compare=[t.value(b"a") == b"3", t.version(b"a") > 0],
        success=[t.put(b"a", b"4"), t.get(b"a")],
        failure=[t.delete(b"a")])
    show("txn", (succeeded, len(responses)))

    watch = await client.watch_prefix(b"w/")

    async def write():
        await client.put(b"w/a", b"1")
        await client.put(b"w/b", b"2")
        await client.delete(b"w/a")

    writer = asyncio.create_task(write())
    seen = []
    async for event in watch:
        seen.append((str(event.kind), kv(event.kv)))
        if len(seen) == 3:
            break
    await watch.cancel()
    await writer
    show("watched", seen)

    lease = await client.lease(100, lease_id=4711)
    await client.put(b"leased", b"1", lease=lease)
    info = await client.get_lease_info(4711)
    show("lease", (info.ID, info.grantedTTL, info.TTL >= 98, list(info.keys)))
    await client.revoke_lease(4711)
    show("after revoke", await client.get(b"leased"))
    await attempt("unknown lease", client.put(b"x", b"1", lease=4712))
    async with client.lock(b"lock", ttl=10) as lock:
        show("locked", await lock.is_acquired())
    await client.compact(5)
    await attempt("compact again", client.compact(5))
    await attempt("past", client.get(b"a", serializable=True))
    await client.defragment()
    show("alarms", [alarm async for alarm in client.list_alarms()])
    status = await client.status()
    show("status", status.raft_term)


async def main():
    async with aetcd.Client(host="127.0.0.1", port=int(sys.argv[1]), timeout=10) as client:
        await session(client)


asyncio.run(asyncio.wait_for(main(), 60))
