//! One request of a client, carried to a server and back on the real wire.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use ringd::{
    backend::{self, Bucket, Image},
    base::Revision,
    wire::proto::etcdserverpb::{
        DefragmentRequest, DefragmentResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
        SnapshotRequest, SnapshotResponse,
    },
};
use sha2::{Digest, Sha256};

use crate::{
    client::Channel,
    history::{Answer, Failure, Request},
};

/// A defragmentation may take this many times as long as other requests.
const DEFRAGMENT_PATIENCE: u32 = 4;

/// Asks, and waits for each message of the answer no longer than so.
///
/// # Errors
/// Whatever came instead of an answer.
pub async fn ask(channel: &Channel, request: &Request, timeout: Duration) -> Result<Answer, Failure> {
    macro_rules! unary {
        ($answer:ident, $path:literal, $request:expr) => {
            channel.unary($path, $request, timeout).await.map(Answer::$answer)
        };
    }
    match request {
        Request::Range(request) => unary!(Range, "/etcdserverpb.KV/Range", request),
        Request::Put(request) => unary!(Put, "/etcdserverpb.KV/Put", request),
        Request::Delete(request) => unary!(Delete, "/etcdserverpb.KV/DeleteRange", request),
        Request::Txn(request) => unary!(Txn, "/etcdserverpb.KV/Txn", request),
        Request::Compact(request) => unary!(Compact, "/etcdserverpb.KV/Compact", request),
        Request::Grant(request) => unary!(Grant, "/etcdserverpb.Lease/LeaseGrant", request),
        Request::Revoke(request) => unary!(Revoke, "/etcdserverpb.Lease/LeaseRevoke", request),
        Request::TimeToLive(request) => unary!(TimeToLive, "/etcdserverpb.Lease/LeaseTimeToLive", request),
        Request::Leases => unary!(Leases, "/etcdserverpb.Lease/LeaseLeases", &LeaseLeasesRequest {}),
        Request::HashKv(request) => unary!(HashKv, "/etcdserverpb.Maintenance/HashKV", request),
        Request::Defragment => {
            let path = "/etcdserverpb.Maintenance/Defragment";
            let timeout = timeout * DEFRAGMENT_PATIENCE;
            let done: Result<DefragmentResponse, _> = channel.unary(path, &DefragmentRequest {}, timeout).await;
            done.map(|_| Answer::Defragment)
        }
        Request::KeepAlive(id) => renew(channel, *id, timeout).await,
        Request::Snapshot => snapshot(channel, timeout).await,
    }
}

async fn renew(channel: &Channel, id: i64, timeout: Duration) -> Result<Answer, Failure> {
    let call = channel
        .open("/etcdserverpb.Lease/LeaseKeepAlive")
        .ok_or(Failure::NotSent)?;
    call.send(&LeaseKeepAliveRequest { id });
    let answer = call.next(timeout).await?.ok_or(Failure::NoAnswer)?;
    let answer = LeaseKeepAliveResponse::decode(answer).expect("a server's answer can be read");
    Ok(Answer::KeepAlive(answer))
}

/// Takes a snapshot and looks at it as an operator's tools would.
async fn snapshot(channel: &Channel, timeout: Duration) -> Result<Answer, Failure> {
    let call = channel
        .open("/etcdserverpb.Maintenance/Snapshot")
        .ok_or(Failure::NotSent)?;
    call.send(&SnapshotRequest {});
    call.end();
    let mut image = Vec::new();
    while let Some(message) = call.next(timeout).await? {
        let part = SnapshotResponse::decode(message).expect("a server's answer can be read");
        image.extend_from_slice(&part.blob);
    }
    read_snapshot(image).map(Answer::Snapshot).map_err(Failure::Damaged)
}

/// The records of the `key` bucket of a snapshot that is whole: revision, whether it is a tombstone, and value.
///
/// # Errors
/// What is wrong with it.
fn read_snapshot(mut image: Vec<u8>) -> Result<Vec<(Revision, bool, Bytes)>, String> {
    let len = image.len().checked_sub(32).ok_or("too short")?;
    if Sha256::digest(&image[..len])[..] != image[len..] {
        return Err("the hash is another".to_owned());
    }
    image.truncate(len);
    let image = Image::from(image);
    let report = backend::check(image.clone(), len as u64).map_err(|fault| fault.to_string())?;
    if let Some(fault) = report.faults.first() {
        return Err(fault.to_string());
    }
    let root = backend::open_root(image, len as u64).map_err(|fault| fault.to_string())?;
    let mut cursor = root.cursor(Bucket::Key);
    let mut records = Vec::new();
    let mut pair = cursor.seek_first().map_err(|fault| fault.to_string())?;
    while let Some((key, value)) = pair {
        let (revision, is_tombstone) = Revision::decode(key).ok_or("a key is no revision")?;
        records.push((revision, is_tombstone, Bytes::copy_from_slice(value)));
        pair = cursor.step().map_err(|fault| fault.to_string())?;
    }
    Ok(records)
}
