//! Streams a version of the tree as a database file, while commits go on.
//!
//! Pages are read with plain reads, not through the mapping: those that are free in this version may be written to at the
//! same time. They come out as anything, and nothing leads to them.

use crate::base::planted::{Planted, is_planted};
use std::{io, rc::Rc};

use bytes::Bytes;

use crate::{
    backend::{Pin, SnapshotPart, StoreFault, meta::Meta},
    host::{File, Map, Sender},
    limits::BACKEND_WRITE_BYTES_MAX,
};

/// Sends all of it. `pin` is held until the end.
pub(super) async fn stream<F: File<Map = M>, M: Map>(file: Rc<F>, pin: Pin<M>, mut sink: Sender<SnapshotPart>) {
    // Who does not listen any more is not told.
    let meta = pin.meta;
    let held = (!is_planted(Planted::SnapshotUnpinned)).then_some(pin);
    _ = stream_parts(&*file, &meta, &mut sink).await;
    drop(held);
}

async fn stream_parts<F: File>(file: &F, meta: &Meta, sink: &mut Sender<SnapshotPart>) -> Result<(), SnapshotPart> {
    sink.send(SnapshotPart::Begin(meta.size())).await?;
    let mut metas = meta.page_as(0);
    let older = Meta {
        txid: meta.txid.saturating_sub(1),
        ..*meta
    };
    metas.extend(older.page_as(1));
    let mut at = metas.len() as u64;
    sink.send(SnapshotPart::Data(Bytes::from(metas))).await?;
    while at < meta.size() {
        let len = (meta.size() - at).min(BACKEND_WRITE_BYTES_MAX as u64);
        match read(file, at, len as usize).await {
            Ok(bytes) => sink.send(SnapshotPart::Data(Bytes::from(bytes))).await?,
            Err(error) => return sink.send(SnapshotPart::Failed(StoreFault::Io("read", error))).await,
        }
        at += len;
    }
    sink.send(SnapshotPart::End).await
}

async fn read<F: File>(file: &F, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let bytes = file.read_at(offset, len).await?;
    if bytes.len() == len {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
