//! The thread that writes lines, and the files it writes them to.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        atomic::Ordering,
        mpsc::{Receiver, SyncSender},
    },
    time::{Duration, SystemTime},
};

use super::{DROPPED, LogError, Message, WAITING_BYTES, format::format_timestamp, wall_time};
use crate::config::{LogConfig, LogLevel, LogOutput, LogRotation};

/// Bytes that are gathered for one write.
const WRITE_BYTES: usize = 64 * 1024;

/// One output.
pub(super) enum Sink {
    Stderr,
    Stdout,
    File(LogFile),
}

/// A log file, and when it is renamed.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    rotation: Option<LogRotation>,
}

pub(super) fn open(config: &LogConfig) -> Result<Vec<Sink>, LogError> {
    let sink = |output: &LogOutput| match output {
        LogOutput::Stderr => Ok(Sink::Stderr),
        LogOutput::Stdout => Ok(Sink::Stdout),
        LogOutput::File(path) => LogFile::open(path, config.rotation.clone())
            .map(Sink::File)
            .map_err(|error| LogError::Open(path.clone(), error)),
    };
    config.outputs.iter().map(sink).collect()
}

/// Writes until nobody can send any more.
pub(super) fn run(mut sinks: Vec<Sink>, messages: &Receiver<Message>) {
    let mut buffer = Vec::with_capacity(WRITE_BYTES);
    let mut dropped_told = 0;
    while let Ok(first) = messages.recv() {
        let mut waiters: Vec<SyncSender<()>> = Vec::new();
        take(first, &mut buffer, &mut waiters);
        while buffer.len() < WRITE_BYTES && waiters.is_empty() {
            match messages.try_recv() {
                Ok(message) => take(message, &mut buffer, &mut waiters),
                Err(_) => break,
            }
        }
        let lines_len = buffer.len();
        let dropped = DROPPED.load(Ordering::Relaxed);
        if dropped > dropped_told {
            buffer.extend_from_slice(dropped_line(dropped - dropped_told).as_bytes());
            dropped_told = dropped;
        }
        for sink in &mut sinks {
            // There is nowhere to tell that the log cannot be written, and the server is worth more than its log.
            let _ = sink.write(&buffer);
        }
        WAITING_BYTES.fetch_sub(lines_len, Ordering::Relaxed);
        buffer.clear();
        for waiter in waiters {
            let _ = waiter.try_send(());
        }
    }
}

fn take(message: Message, buffer: &mut Vec<u8>, waiters: &mut Vec<SyncSender<()>>) {
    match message {
        Message::Line(line) => buffer.extend_from_slice(&line),
        Message::Flush(waiter) => waiters.push(waiter),
    }
}

fn dropped_line(count: u64) -> String {
    format!(
        "{{\"level\":\"{}\",\"ts\":\"{}\",\"caller\":\"log/writer.rs:{}\",\"msg\":\"log lines were dropped, the outputs \
         could not keep up\",\"count\":{count}}}\n",
        LogLevel::Warn.name(),
        format_timestamp(wall_time()),
        line!()
    )
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stderr => io::stderr().lock().write_all(bytes),
            Sink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Sink::File(file) => file.write(bytes),
        }
    }
}

impl LogFile {
    fn open(path: &Path, rotation: Option<LogRotation>) -> io::Result<LogFile> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(LogFile {
            path: path.to_path_buf(),
            file,
            bytes,
            rotation,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let bytes_len = bytes.len() as u64;
        let is_full = |rotation: &LogRotation| self.bytes > 0 && self.bytes + bytes_len > rotation.file_bytes_max;
        if let Some(rotation) = self.rotation.clone().filter(is_full) {
            self.rotate(&rotation)?;
        }
        self.file.write_all(bytes)?;
        self.bytes += bytes_len;
        Ok(())
    }

    /// Renames the full file, begins a new one, and removes renamed ones that are too many or too old.
    fn rotate(&mut self, rotation: &LogRotation) -> io::Result<()> {
        fs::rename(&self.path, self.backup_path())?;
        *self = LogFile::open(&self.path, Some(rotation.clone()))?;
        let mut backups = self.backups()?;
        // The time is in the name, so that names sort as times do.
        backups.sort();
        let kept_max = match rotation.backups_max {
            0 => backups.len(),
            count => count as usize,
        };
        let age_max = Duration::from_secs(u64::from(rotation.age_days_max) * 86_400);
        let surplus = backups.len().saturating_sub(kept_max);
        for (index, backup) in backups.iter().enumerate() {
            let is_old = !age_max.is_zero() && age(backup).is_some_and(|age| age > age_max);
            if index < surplus || is_old {
                fs::remove_file(backup)?;
            }
        }
        Ok(())
    }

    /// `name-2026-11-21T06-51-17.966927Z.log` beside `name.log`.
    fn backup_path(&self) -> PathBuf {
        let (stem, extension) = self.name_parts();
        let time = format_timestamp(wall_time()).replace(':', "-");
        self.path.with_file_name(format!("{stem}-{time}{extension}"))
    }

    fn name_parts(&self) -> (String, String) {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let extension = self
            .path
            .extension()
            .map(|extension| format!(".{}", extension.to_string_lossy()));
        (stem, extension.unwrap_or_default())
    }

    fn backups(&self) -> io::Result<Vec<PathBuf>> {
        let (stem, extension) = self.name_parts();
        let prefix = format!("{stem}-");
        let directory = match self.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        let mut backups = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let time = name
                .strip_prefix(&prefix)
                .and_then(|rest| rest.strip_suffix(&extension));
            if time.is_some_and(is_backup_time) {
                backups.push(directory.join(name));
            }
        }
        Ok(backups)
    }
}

/// Whether a text has the shape of a backup's time, so that no other file is ever removed.
fn is_backup_time(text: &str) -> bool {
    const SHAPE: &str = "0000-00-00T00-00-00.000000Z";
    let fits = |(byte, shape): (u8, u8)| {
        if shape == b'0' {
            byte.is_ascii_digit()
        } else {
            byte == shape
        }
    };
    text.len() == SHAPE.len() && text.bytes().zip(SHAPE.bytes()).all(fits)
}

fn age(path: &Path) -> Option<Duration> {
    let modified = fs::metadata(path).ok()?.modified().ok()?;
    SystemTime::now().duration_since(modified).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_renamed_and_old_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ringd.log");
        fs::write(directory.path().join("ringd-other.log"), "stays").unwrap();
        let rotation = LogRotation {
            file_bytes_max: 10,
            backups_max: 2,
            age_days_max: 0,
        };
        let mut file = LogFile::open(&path, Some(rotation)).unwrap();
        for round in 0..5 {
            file.write(format!("line {round}\n").as_bytes()).unwrap();
            // Two renamed files need two names.
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 4\n");
        let backups = file.backups().unwrap();
        assert_eq!(backups.len(), 2, "{backups:?}");
        assert!(directory.path().join("ringd-other.log").exists());
    }
}
