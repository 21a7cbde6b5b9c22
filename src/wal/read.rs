//! Reading segments' files piece by piece, and putting a torn tail in order before the log goes on.

use std::{io, path::Path};

use super::{
    WalFault,
    decoder::{LogDecoder, Next, RecordSink},
    drive,
    fault::io_fault,
    prepare,
    segment::{self, SegmentName},
};
use crate::{
    base::LogIndex,
    host::{Disk, File, Host, OpenMode},
    limits::WAL_READ_BYTES,
};

/// Gives `sink` the records of a whole log, as far as it reaches back without a gap. A torn tail ends it, as its end
/// does. Takes no lock.
pub async fn read_log<H: Host>(host: &H, directory: &Path, sink: &mut impl RecordSink) -> Result<(), WalFault> {
    let segments = segment::segments_in(&drive::list(host, directory).await?);
    let segments = segment::last_sequence(&segments);
    let mut decoder = LogDecoder::new();
    for (place, name) in segments.iter().enumerate() {
        let path = directory.join(name.to_string());
        let file = host
            .disk()
            .open(&path, OpenMode::Read)
            .await
            .map_err(io_fault("open", &path))?;
        let is_last = place + 1 == segments.len();
        match read_segment(&file, &path, *name, is_last, &mut decoder, sink).await {
            Err(WalFault::UnexpectedEof(_)) if is_last => {}
            other => other?,
        }
    }
    match segments.is_empty() {
        true => Err(WalFault::FileNotFound {
            directory: directory.to_path_buf(),
            snapshot_index: LogIndex(0),
        }),
        false => Ok(()),
    }
}

/// Gives `sink` the records of one segment.
pub(super) async fn read_segment<F: File>(
    file: &F,
    path: &Path,
    name: SegmentName,
    is_last: bool,
    decoder: &mut LogDecoder,
    sink: &mut impl RecordSink,
) -> Result<(), WalFault> {
    let len = file.size().await.map_err(io_fault("measure", path))?;
    decoder.begin_segment(name.to_string(), len, is_last);
    let mut bytes = file.read_at(0, WAL_READ_BYTES).await.map_err(io_fault("read", path))?;
    loop {
        // The disk reads the next piece while this one is walked.
        let read_to = decoder.offset() + bytes.len() as u64;
        let reading = file.read_at(read_to, WAL_READ_BYTES);
        let walking = async { decoder.feed(&bytes, sink) };
        let (piece, walked) = futures_lite::future::zip(reading, walking).await;
        let (consumed, Next::More(_)) = walked? else {
            return Ok(());
        };
        let piece = piece.map_err(io_fault("read", path))?;
        if piece.is_empty() {
            return Err(io_fault("read", path)(io::ErrorKind::UnexpectedEof.into()));
        }
        match consumed == bytes.len() {
            true => bytes = piece,
            false => {
                bytes.drain(..consumed);
                bytes.extend_from_slice(&piece);
            }
        }
    }
}

/// Reads `len` bytes that are there.
pub(super) async fn read_exactly<F: File>(file: &F, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, WalFault> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let piece = file
            .read_at(offset + bytes.len() as u64, len - bytes.len())
            .await
            .map_err(io_fault("read", path))?;
        if piece.is_empty() {
            return Err(io_fault("read", path)(io::ErrorKind::UnexpectedEof.into()));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Copies a segment with a torn tail to `<name>.broken` before it is repaired, as etcd does.
pub(super) async fn keep_broken<H: Host, F: File>(host: &H, path: &Path, file: &F) -> Result<(), WalFault> {
    let mut name = path.as_os_str().to_os_string();
    name.push(".broken");
    let broken_path = Path::new(&name);
    prepare::remove_if_there(host, broken_path).await?;
    let broken = host
        .disk()
        .open(broken_path, OpenMode::CreateNew)
        .await
        .map_err(io_fault("create", broken_path))?;
    let mut offset = 0;
    loop {
        let piece = file
            .read_at(offset, WAL_READ_BYTES)
            .await
            .map_err(io_fault("read", path))?;
        if piece.is_empty() {
            break;
        }
        broken
            .write_bytes_at(offset, &piece)
            .await
            .map_err(io_fault("write", broken_path))?;
        offset += piece.len() as u64;
    }
    broken.sync_data().await.map_err(io_fault("sync", broken_path))
}

/// Makes everything behind the log's last record zero, before anything is appended: a write that a crash interrupted
/// may have left later blocks without the first, and what is appended now would run into them. The caller syncs.
pub(super) async fn clear_behind<F: File>(
    file: &F,
    path: &Path,
    position: u64,
    segment_bytes: u64,
) -> Result<(), WalFault> {
    let mut offset = position;
    loop {
        let piece = file
            .read_at(offset, WAL_READ_BYTES)
            .await
            .map_err(io_fault("read", path))?;
        if piece.is_empty() {
            break;
        }
        if piece.iter().any(|byte| *byte != 0) {
            file.write_bytes_at(offset, &vec![0; piece.len()])
                .await
                .map_err(io_fault("write", path))?;
        }
        offset += piece.len() as u64;
    }
    if offset < segment_bytes {
        // A repair by etcd leaves the segment short.
        file.allocate(segment_bytes).await.map_err(io_fault("allocate", path))?;
    }
    Ok(())
}
