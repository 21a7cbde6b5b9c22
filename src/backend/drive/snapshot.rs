//! Streams a version of the tree as a database file, while commits go on.
//!
//! Pages are read with plain reads, not through the mapping: those that are free in this version may be written to at the
//! same time. They come out as anything, and nothing leads to them.
//!
//! A snapshot takes its time: its bytes pass the core that serves requests, and its client mostly writes them to a disk, at
//! times the same one. Its hash is computed here, where it keeps nobody waiting.

use crate::base::planted::{Planted, is_planted};
use std::{io, rc::Rc, time::Duration};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::volume::{FileOf, MapOf};
use crate::{
    backend::{Pin, SnapshotPart, StoreFault, meta::Meta},
    host::{File, Host, Sender},
    limits::BACKEND_WRITE_BYTES_MAX,
};

/// The rest after each part; together with it the bound of a snapshot's speed: 128 MiB a second.
const PART_REST: Duration = Duration::from_millis(2);

/// Sends all of it. `pin` is held until the end.
pub(super) async fn stream<H: Host>(host: H, file: Rc<FileOf<H>>, pin: Pin<MapOf<H>>, mut sink: Sender<SnapshotPart>) {
    // Who does not listen any more is not told.
    let meta = pin.meta;
    let held = (!is_planted(Planted::SnapshotUnpinned)).then_some(pin);
    _ = stream_parts(&host, &*file, &meta, &mut sink).await;
    drop(held);
}

async fn stream_parts<H: Host>(
    host: &H,
    file: &FileOf<H>,
    meta: &Meta,
    sink: &mut Sender<SnapshotPart>,
) -> Result<(), SnapshotPart> {
    let mut hash = Sha256::new();
    sink.send(SnapshotPart::Begin(meta.size())).await?;
    let mut metas = meta.page_as(0);
    let older = Meta {
        txid: meta.txid.saturating_sub(1),
        ..*meta
    };
    metas.extend(older.page_as(1));
    let mut at = metas.len() as u64;
    hash.update(&metas);
    sink.send(SnapshotPart::Data(Bytes::from(metas))).await?;
    while at < meta.size() {
        let len = (meta.size() - at).min(BACKEND_WRITE_BYTES_MAX as u64);
        match read(file, at, len as usize).await {
            Ok(bytes) => {
                hash.update(&bytes);
                sink.send(SnapshotPart::Data(Bytes::from(bytes))).await?;
            }
            Err(error) => return sink.send(SnapshotPart::Failed(StoreFault::Io("read", error))).await,
        }
        at += len;
        host.sleep_until(host.now() + PART_REST).await;
    }
    sink.send(SnapshotPart::End(hash.finalize().into())).await
}

async fn read<F: File>(file: &F, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let bytes = file.read_at(offset, len).await?;
    if bytes.len() == len {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
