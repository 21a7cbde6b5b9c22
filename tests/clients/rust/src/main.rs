//! session PORT: a session with the Rust client `etcd-client`; prints what it answers.

use std::{env, fmt::Debug, time::Duration};

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, GetOptions, KeyValue, LeaseGrantOptions, LeaseTimeToLiveOptions,
    PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchFilterType, WatchOptions,
};

/// Any record: keys, values, revisions, version and lease.
fn kv(pair: &KeyValue) -> String {
    let (create, modified) = (pair.create_revision(), pair.mod_revision());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (key, value) = (text(pair.key()), text(pair.value()));
    format!(
        "{key}={value} c{create} m{modified} v{} l{}",
        pair.version(),
        pair.lease()
    )
}

fn kvs(pairs: &[KeyValue]) -> Vec<String> {
    pairs.iter().map(kv).collect()
}

fn show(what: &str, value: impl Debug) {
    println!("{what}: {value:?}");
}

/// The kind and the words of an error are what is compared.
fn refused<T>(what: &str, answer: Result<T, Error>) {
    match answer {
        Ok(_) => show(what, "accepted"),
        Err(Error::GRpcStatus(status)) => show(what, (status.code(), status.message())),
        Err(error) => show(what, error.to_string()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let port = env::args().nth(1).expect("usage: session PORT");
    let client = Client::connect([format!("127.0.0.1:{port}")], None).await?;
    keys(client.clone()).await?;
    transactions(client.clone()).await?;
    watches(client.clone()).await?;
    leases(client.clone()).await?;
    upkeep(client).await
}

async fn keys(mut client: Client) -> Result<(), Error> {
    show("put", client.put("a", "1", None).await?);
    let again = client.put("a", "2", Some(PutOptions::new().with_prev_key())).await?;
    show(
        "put again",
        (again.prev_key().map(kv), again.header().map(|header| header.revision())),
    );
    let kept = Some(PutOptions::new().with_ignore_value());
    show(
        "ignore value",
        client
            .put("a", "", kept.clone())
            .await?
            .header()
            .map(|header| header.revision()),
    );
    refused("ignore value of nothing", client.put("none", "", kept).await);
    refused("no key", client.put("", "1", None).await);
    show("get", kvs(client.get("a", None).await?.kvs()));
    show("get nothing", client.get("none", None).await?);
    for index in 0..5 {
        client.put(format!("p/{index}"), format!("{}", 9 - index), None).await?;
    }
    let prefix = || GetOptions::new().with_prefix();
    show("prefix", kvs(client.get("p/", Some(prefix())).await?.kvs()));
    let sorted = prefix().with_sort(SortTarget::Value, SortOrder::Ascend);
    show("sorted", kvs(client.get("p/", Some(sorted)).await?.kvs()));
    let limited = client.get("p/", Some(prefix().with_limit(2))).await?;
    show("limited", (kvs(limited.kvs()), limited.count(), limited.more()));
    show("count", client.get("p/", Some(prefix().with_count_only())).await?);
    show(
        "keys",
        kvs(client.get("p/", Some(prefix().with_keys_only())).await?.kvs()),
    );
    show(
        "from",
        kvs(client.get("p/3", Some(GetOptions::new().with_from_key())).await?.kvs()),
    );
    show(
        "past",
        kvs(client.get("a", Some(GetOptions::new().with_revision(2))).await?.kvs()),
    );
    refused(
        "future",
        client.get("a", Some(GetOptions::new().with_revision(999))).await,
    );
    let recent = prefix().with_min_mod_revision(7).with_max_create_revision(8);
    show("filtered", kvs(client.get("p/", Some(recent)).await?.kvs()));
    let deleted = client
        .delete("p/1", Some(DeleteOptions::new().with_range("p/3").with_prev_key()))
        .await?;
    show("delete", (deleted.deleted(), kvs(deleted.prev_kvs())));
    show("delete nothing", client.delete("none", None).await?);
    Ok(())
}

async fn transactions(mut client: Client) -> Result<(), Error> {
    let inner = Txn::new()
        .when(vec![Compare::lease("a", CompareOp::Equal, 0)])
        .and_then(vec![
            TxnOp::get("t", None),
            TxnOp::delete("p/", Some(DeleteOptions::new().with_prefix())),
        ]);
    let txn = Txn::new()
        .when(vec![
            Compare::value("a", CompareOp::Equal, "2"),
            Compare::version("a", CompareOp::Greater, 1),
            Compare::mod_revision("p/", CompareOp::Less, 99).with_prefix(),
        ])
        .and_then(vec![TxnOp::put("t", "yes", None), TxnOp::txn(inner)])
        .or_else(vec![TxnOp::put("t", "no", None)]);
    show("txn", client.txn(txn).await?);
    let failing = Txn::new()
        .when(vec![Compare::create_revision("a", CompareOp::Equal, 0)])
        .or_else(vec![TxnOp::get("a", None)]);
    let answer = client.txn(failing).await?;
    for response in answer.op_responses() {
        if let TxnOpResponse::Get(found) = response {
            show("or else", kvs(found.kvs()));
        }
    }
    let twice = Txn::new().and_then(vec![TxnOp::put("d", "1", None), TxnOp::put("d", "2", None)]);
    refused("a key twice", client.txn(twice).await);
    Ok(())
}

async fn watches(mut client: Client) -> Result<(), Error> {
    let all = WatchOptions::new().with_prefix().with_prev_key();
    let mut stream = client.watch("w/", Some(all)).await?;
    client.put("w/a", "1", None).await?;
    client.put("w/b", "2", None).await?;
    client.delete("w/a", None).await?;
    let mut events = 0;
    while events < 3 {
        let Some(answer) = stream.message().await? else { break };
        for event in answer.events() {
            events += 1;
            show(
                "event",
                (event.event_type(), event.kv().map(kv), event.prev_kv().map(kv)),
            );
        }
    }
    stream.request_progress().await?;
    let progress = stream.message().await?;
    show(
        "progress",
        progress.map(|answer| (answer.watch_id(), answer.events().len())),
    );
    let past = WatchOptions::new()
        .with_start_revision(2)
        .with_filters(vec![WatchFilterType::NoDelete]);
    stream.watch("a", Some(past.with_watch_id(7))).await?;
    let created = stream.message().await?;
    show(
        "second",
        created.map(|answer| (answer.watch_id(), answer.created(), answer.canceled())),
    );
    let told = stream.message().await?;
    show("history", told.map(|answer| (answer.watch_id(), answer.events().len())));
    stream.cancel(7).await?;
    let gone = stream.message().await?;
    show(
        "cancel",
        gone.map(|answer| (answer.watch_id(), answer.canceled(), answer.cancel_reason().to_owned())),
    );
    Ok(())
}

async fn leases(mut client: Client) -> Result<(), Error> {
    let granted = client
        .lease_grant(100, Some(LeaseGrantOptions::new().with_id(4711)))
        .await?;
    show("grant", (granted.id(), granted.ttl()));
    refused(
        "grant again",
        client
            .lease_grant(100, Some(LeaseGrantOptions::new().with_id(4711)))
            .await,
    );
    refused("grant too long", client.lease_grant(i64::MAX, None).await);
    client
        .put("leased", "1", Some(PutOptions::new().with_lease(4711)))
        .await?;
    refused(
        "unknown lease",
        client.put("x", "1", Some(PutOptions::new().with_lease(4712))).await,
    );
    let life = client
        .lease_time_to_live(4711, Some(LeaseTimeToLiveOptions::new().with_keys()))
        .await?;
    show(
        "time to live",
        (life.granted_ttl(), life.ttl() >= 98, life.keys().to_vec()),
    );
    let (mut keeper, mut stream) = client.lease_keep_alive(4711).await?;
    keeper.keep_alive().await?;
    show(
        "keep alive",
        stream.message().await?.map(|answer| (answer.id(), answer.ttl())),
    );
    show("leases", client.leases().await?.leases().len());
    client.lease_revoke(4711).await?;
    show("after revoke", client.get("leased", None).await?.count());
    refused("revoke again", client.lease_revoke(4711).await);
    refused("keep alive of nothing", client.lease_keep_alive(4711).await);
    let life = client.lease_time_to_live(4711, None).await?;
    show("time to live of nothing", (life.granted_ttl(), life.ttl()));
    // Its number is in the records that are hashed.
    let short = client.lease_grant(1, Some(LeaseGrantOptions::new().with_id(4713))).await?;
    client
        .put("short", "1", Some(PutOptions::new().with_lease(short.id())))
        .await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    show("expired", client.get("short", None).await?.count());
    Ok(())
}

async fn upkeep(mut client: Client) -> Result<(), Error> {
    show("hash", client.hash_kv(0).await.map(|answer| answer.hash())?);
    client.compact(5, None).await?;
    refused("compact again", client.compact(5, None).await);
    refused("compact the future", client.compact(999, None).await);
    refused(
        "compacted",
        client.get("a", Some(GetOptions::new().with_revision(3))).await,
    );
    let mut stream = client
        .watch("a", Some(WatchOptions::new().with_start_revision(2)))
        .await?;
    let told = stream.message().await?;
    show(
        "watch of the compacted",
        told.map(|answer| (answer.canceled(), answer.compact_revision())),
    );
    client.defragment().await?;
    let members = client.member_list().await?;
    show(
        "members",
        members
            .members()
            .iter()
            .map(|member| (member.id(), member.name().to_owned()))
            .collect::<Vec<_>>(),
    );
    let status = client.status().await?;
    show(
        "status",
        (
            status.leader(),
            status.raft_term(),
            status.is_learner(),
            status.errors().to_vec(),
        ),
    );
    let mut snapshot = client.snapshot().await?;
    let (mut bytes, mut remaining) = (0, 0);
    while let Some(part) = snapshot.message().await? {
        bytes += part.blob().len();
        remaining = part.remaining_bytes();
    }
    show("snapshot", (bytes > 4096, bytes % 512, remaining));
    refused("remove of nobody", client.member_remove(77).await);
    refused("leader to nobody", client.move_leader(77).await);
    Ok(())
}
