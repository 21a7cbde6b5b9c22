//! etcdserverpb.Maintenance.

use bytes::Bytes;

use super::decode;
use crate::{
    propose::{FileWork, Question, Read, Request, Write},
    wire::{
        proto::etcdserverpb::{
            DefragmentRequest, DowngradeRequest, HashRequest, MoveLeaderRequest, SnapshotRequest, StatusRequest,
        },
        status::Status,
    },
};

/// `Alarm`: passes the log whatever its action, as in etcd, so that GET sees what was raised before.
pub fn alarm(message: Bytes) -> Result<Request, Status> {
    Ok(Request::Write(Write::Alarm(decode(message)?)))
}

/// `Status`.
pub fn status(message: Bytes) -> Result<Request, Status> {
    let StatusRequest {} = decode(message)?;
    Ok(Request::Read(Read::Status))
}

/// `Defragment`.
pub fn defragment(message: Bytes) -> Result<Request, Status> {
    let DefragmentRequest {} = decode(message)?;
    Ok(Request::File(FileWork::Defragment))
}

/// `Hash`.
pub fn hash(message: Bytes) -> Result<Request, Status> {
    let HashRequest {} = decode(message)?;
    Ok(Request::File(FileWork::Hash))
}

/// `HashKV`.
pub fn hash_kv(message: Bytes) -> Result<Request, Status> {
    Ok(Request::File(FileWork::HashKv(decode(message)?)))
}

/// `MoveLeader`.
pub fn move_leader(message: Bytes) -> Result<Request, Status> {
    let MoveLeaderRequest { target_id } = decode(message)?;
    Ok(Request::Read(Read::Ask(Question::MoveLeader { target: target_id })))
}

/// `Downgrade`.
pub fn downgrade(message: Bytes) -> Result<Request, Status> {
    let DowngradeRequest { action, version } = decode(message)?;
    Ok(Request::Read(Read::Ask(Question::Downgrade { action, version })))
}

/// `Snapshot`, whose answers the session makes.
pub fn snapshot(message: Bytes) -> Result<(), Status> {
    let SnapshotRequest {} = decode(message)?;
    Ok(())
}
