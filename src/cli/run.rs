//! Carries out offline commands, on whatever host: the real disk, or one in memory.

use std::path::{Path, PathBuf};

use super::{Command, check, print_status, restore, status};
use crate::{
    base::MemberId,
    host::{Disk, File, Host, OpenMode},
    wal::{dump::Dump, read_log},
};

/// Runs a command. What it finds is handed to `print`, whole lines at a time.
///
/// # Errors
/// What to tell on standard error; the process then ends with 1.
pub async fn run<H: Host>(host: &H, command: &Command, print: &mut dyn FnMut(&str)) -> Result<(), String> {
    match command {
        Command::SnapshotStatus { file, format } => {
            let status = status::status(host, file).await?;
            print(&print_status(&status, *format));
            Ok(())
        }
        Command::SnapshotRestore(command) => {
            let member_id = restore::restore(host, command).await?;
            print(&restored_text(&command.data_dir, member_id));
            Ok(())
        }
        Command::Check { data_dir } => check::check(host, data_dir, print).await,
        Command::WalDump { directory } => {
            let directory = log_directory(host, directory).await?;
            let mut dump = Dump::new(|line: &str| print(&format!("{line}\n")));
            read_log(host, &directory, &mut dump)
                .await
                .map_err(|fault| fault.to_string())
        }
    }
}

fn restored_text(data_dir: &Path, member_id: MemberId) -> String {
    format!("restored member {member_id:x} into {}\n", data_dir.display())
}

/// The directory of segments: the named one, or its `member/wal` if it is a data directory.
async fn log_directory<H: Host>(host: &H, directory: &Path) -> Result<PathBuf, String> {
    let inner = directory.join("member").join("wal");
    match host.disk().exists(&inner).await {
        Ok(true) => Ok(inner),
        Ok(false) => Ok(directory.to_path_buf()),
        Err(error) => Err(format!("cannot look at {}: {error}", inner.display())),
    }
}

/// An open database file that no server uses, and its length.
pub(super) async fn open_unused<H: Host>(host: &H, path: &Path) -> Result<(<H::Disk as Disk>::File, u64), String> {
    let shown = path.display();
    let file = host
        .disk()
        .open(path, OpenMode::Read)
        .await
        .map_err(|error| format!("open {shown}: {error}"))?;
    file.try_lock().map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => format!("{shown} is in use: stop the server first"),
        _ => format!("lock {shown}: {error}"),
    })?;
    let size = file.size().await.map_err(|error| format!("read {shown}: {error}"))?;
    Ok((file, size))
}
