//! Another file in place of the one in use: a database that came from another member.

use std::path::Path;

use super::{
    Outcome, Store, burial, tell,
    volume::{Cost, MapOf, Volume},
};
use crate::{
    backend::{
        Bucket, OpenFault, StoreEvent, StoreFault,
        batch::Batch,
        check::open_root,
        messages::Received,
        root::Root,
        walk::{Depth, Walk},
    },
    host::{Disk, File, Host, Map, OpenMode, Sender},
};

impl<H: Host> Store<H> {
    /// Looks through a file that is not in use yet.
    pub(super) async fn examine(&self, path: &Path, events: &mut Sender<StoreEvent<MapOf<H>>>) -> Outcome {
        let examined = examine(&self.host, path).await;
        tell(events, StoreEvent::Examined(examined)).await
    }

    /// Takes a file that was examined as the database: all work on the old one is given up, and its versions live on in
    /// whoever holds them. A fault leaves nobody who could say what a restart would find.
    pub(super) async fn install(
        &mut self,
        path: &Path,
        events: &mut Sender<StoreEvent<MapOf<H>>>,
    ) -> Result<Outcome, StoreFault> {
        let started = self.host.now();
        self.jobs.clear();
        self.reads.clear();
        self.defragments.clear();
        self.job.changes = Batch::new();
        self.job.is_held = false;
        self.retired = None;
        if let Some(defragmentation) = self.defragmentation.take()
            && let Err(fault) = defragmentation.abandon().await
        {
            tracing::warn!(%fault, "a file stays behind");
        }
        let options = self.volume.options().clone();
        let renamed = self.host.disk().rename(path, &options.path).await;
        renamed.map_err(|error| StoreFault::Io("rename", error))?;
        let successor = Volume::open(self.host.clone(), options)
            .await
            .map_err(|fault| match fault {
                OpenFault::Io(operation, error) => StoreFault::Io(operation, error),
                OpenFault::Page(fault) => StoreFault::Page(fault),
                fault => StoreFault::Io("open", std::io::Error::other(fault.to_string())),
            })?;
        let old = std::mem::replace(&mut self.volume, successor);
        self.volume.sync_name().await?;
        self.host.spawn(burial::bury(self.host.clone(), old));
        let report = self.report(None, Cost::default(), started);
        Ok(tell(events, StoreEvent::Installed(report)).await)
    }
}

/// What a file says of itself, if it is sound: every page is reached once, and each that has a checksum matches it.
pub(super) async fn examine<H: Host>(host: &H, path: &Path) -> Result<Received, OpenFault> {
    let (map, size) = open(host, path).await?;
    let root = open_root(map, size)?;
    if let Some(fault) = Walk::run(&root, Depth::Keys).faults.first() {
        return Err(OpenFault::Page(*fault));
    }
    Ok(Received {
        size,
        applied_index: stored_index(&root)?,
    })
}

/// The applied index that a file holds that is not in use.
///
/// # Errors
/// If it cannot be read as a database.
pub async fn applied_index<H: Host>(host: &H, path: &Path) -> Result<u64, OpenFault> {
    let (map, size) = open(host, path).await?;
    stored_index(&open_root(map, size)?)
}

async fn open<H: Host>(host: &H, path: &Path) -> Result<(MapOf<H>, u64), OpenFault> {
    let failed = |operation| move |error| OpenFault::Io(operation, error);
    let file = host.disk().open(path, OpenMode::Read).await.map_err(failed("open"))?;
    let size = file.size().await.map_err(failed("read"))?;
    Ok((file.map(size).map_err(failed("map"))?, size))
}

fn stored_index<M: Map>(root: &Root<M>) -> Result<u64, OpenFault> {
    let stored = root.get(Bucket::Meta, b"consistent_index")?;
    let number = stored.and_then(|bytes| bytes.try_into().ok());
    Ok(number.map_or(0, u64::from_be_bytes))
}
