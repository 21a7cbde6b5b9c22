//! etcdserverpb.KV: which requests pass the log and which are reads.

use bytes::Bytes;

use super::decode;
use crate::{
    apply::check,
    propose::{Read, Request, Write},
    wire::status::Status,
};

/// `Range`: a read.
pub fn range(message: Bytes) -> Result<Request, Status> {
    let request = decode(message)?;
    check::range(&request)?;
    Ok(Request::Read(Read::Range(request)))
}

/// `Put`.
pub fn put(message: Bytes) -> Result<Request, Status> {
    let request = decode(message)?;
    check::put(&request)?;
    Ok(Request::Write(Write::Put(request)))
}

/// `DeleteRange`.
pub fn delete_range(message: Bytes) -> Result<Request, Status> {
    let request = decode(message)?;
    check::delete_range(&request)?;
    Ok(Request::Write(Write::DeleteRange(request)))
}

/// `Txn`: a read if all of its operations are ranges, as etcd decides it.
pub fn txn(message: Bytes, operations_max: u32) -> Result<Request, Status> {
    let request = decode(message)?;
    check::txn(&request, operations_max)?;
    if check::is_txn_read_only(&request) {
        Ok(Request::Read(Read::Txn(request)))
    } else {
        Ok(Request::Write(Write::Txn(request)))
    }
}

/// `Compact`.
pub fn compact(message: Bytes) -> Result<Request, Status> {
    Ok(Request::Write(Write::Compact(decode(message)?)))
}
