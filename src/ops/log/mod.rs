//! The log: lines with zap's field names, written behind the cores' backs.
//!
//! A core formats its line and hands it to a bounded queue; one thread writes. When the thread cannot keep up (a slow
//! terminal, a full pipe) lines are dropped and counted, and the core goes on. The lines of a panic are written before
//! the process ends. This is the one place outside `ring/` that owns files, a thread and the time of day: none of it
//! reaches what is replicated.
//!
//! Fields with etcd's names are written as text: `info!("local-member-id" = %id, "opened backend db")`. Three names
//! are special: `zap.level` replaces the level (`fatal`), `zap.logger` names the logger (`raft`), `zap.caller` the place.

mod format;
mod writer;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{self, SyncSender, TrySendError},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tracing::{Event, Level, Metadata, Subscriber, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::{
    base::WallTime,
    config::{LogConfig, LogFormat, LogLevel, Notice},
};

pub use format::format_timestamp;

/// Lines that may wait to be written.
const QUEUE_LINES_MAX: usize = 8_192;
/// Bytes that may wait to be written.
const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long the end of the process waits for the last lines.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

/// The running log of this process.
static LOG: OnceLock<Log> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);
static WAITING_BYTES: AtomicUsize = AtomicUsize::new(0);

struct Log {
    queue: SyncSender<Message>,
    format: LogFormat,
    level: LogLevel,
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Why there is no log.
#[derive(Debug)]
pub enum LogError {
    /// A file could not be opened.
    Open(PathBuf, std::io::Error),
    /// There is a log already, or another subscriber.
    Started,
    /// The writing thread could not be started.
    Thread(std::io::Error),
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::Open(path, error) => write!(f, "couldn't open sink {:?}: {error}", path.display().to_string()),
            LogError::Started => f.write_str("the log was started before"),
            LogError::Thread(error) => write!(f, "couldn't start the log's thread: {error}"),
        }
    }
}

impl std::error::Error for LogError {}

/// Starts the log of the process: everything `tracing` is told from now on goes to `config`'s outputs.
///
/// # Errors
/// A file that cannot be opened, or a second start.
pub fn start(config: &LogConfig) -> Result<(), LogError> {
    let sinks = writer::open(config)?;
    let (queue, messages) = mpsc::sync_channel(QUEUE_LINES_MAX);
    std::thread::Builder::new()
        .name("log".to_string())
        .spawn(move || writer::run(sinks, &messages))
        .map_err(LogError::Thread)?;
    let log = Log {
        queue,
        format: config.format,
        level: config.level,
    };
    LOG.set(log).map_err(|_| LogError::Started)?;
    let subscriber = tracing_subscriber::registry().with(ZapLayer { level: config.level });
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Started)?;
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        log_panic(panic);
        flush();
        before(panic);
    }));
    Ok(())
}

/// Waits until all lines so far are written, or two seconds. To be called before the process ends on purpose.
pub fn flush() {
    let Some(log) = LOG.get() else { return };
    let (done, wait) = mpsc::sync_channel(1);
    let deadline = Instant::now() + FLUSH_WAIT;
    let mut message = Message::Flush(done);
    loop {
        match log.queue.try_send(message) {
            Ok(()) => break,
            Err(TrySendError::Full(back)) if Instant::now() < deadline => message = back,
            Err(_) => return,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // Whether it was in time does not matter any more.
    let _ = wait.recv_timeout(FLUSH_WAIT);
}

/// Lines dropped since the start because the outputs could not keep up.
pub fn lines_dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Writes what was found while the configuration was read; to standard error when there is no log (yet).
pub fn tell(notices: &[Notice]) {
    for notice in notices {
        let now = wall_time();
        match LOG.get() {
            Some(log) if notice.level < log.level => {}
            Some(log) => enqueue(log, format_notice(notice, log.format, now).into_bytes()),
            None => eprint!("{}", format_notice(notice, LogFormat::Json, now)),
        }
    }
}

/// A notice as a line.
pub fn format_notice(notice: &Notice, format: LogFormat, now: WallTime) -> String {
    let mut line = format::Line::new(now, notice.level.name());
    line.set_caller(notice.caller.file(), notice.caller.line());
    line.set_message(&notice.message);
    for (name, value) in &notice.fields {
        line.add_text(name, value);
    }
    line.finish(format)
}

fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let Some(log) = LOG.get() else { return };
    let mut line = format::Line::new(wall_time(), LogLevel::Panic.name());
    if let Some(place) = panic.location() {
        line.set_caller(place.file(), place.line());
    }
    let payload = panic.payload();
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text.as_str(),
        (None, None) => "a panic without words",
    };
    line.set_message(message);
    line.add_text("thread", std::thread::current().name().unwrap_or(""));
    line.add_text("stacktrace", &std::backtrace::Backtrace::capture().to_string());
    enqueue(log, line.finish(log.format).into_bytes());
}

fn wall_time() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn enqueue(log: &Log, line: Vec<u8>) {
    let bytes = line.len();
    if WAITING_BYTES.load(Ordering::Relaxed).saturating_add(bytes) > QUEUE_BYTES_MAX {
        DROPPED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    WAITING_BYTES.fetch_add(bytes, Ordering::Relaxed);
    if log.queue.try_send(Message::Line(line)).is_err() {
        WAITING_BYTES.fetch_sub(bytes, Ordering::Relaxed);
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Turns `tracing`'s events into lines.
struct ZapLayer {
    level: LogLevel,
}

impl ZapLayer {
    fn filter(&self) -> LevelFilter {
        match self.level {
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Warn => LevelFilter::WARN,
            // The levels above error are errors with a `zap.level` field, and looked at one by one.
            LogLevel::Error | LogLevel::DPanic | LogLevel::Panic | LogLevel::Fatal => LevelFilter::ERROR,
        }
    }
}

impl<S: Subscriber> Layer<S> for ZapLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.filter() >= *metadata.level() {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.filter() >= *metadata.level()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.filter())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(log) = LOG.get() else { return };
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::TRACE | Level::DEBUG => LogLevel::Debug,
            Level::INFO => LogLevel::Info,
            Level::WARN => LogLevel::Warn,
            Level::ERROR => LogLevel::Error,
        };
        let mut line = format::Line::new(wall_time(), level.name());
        line.set_caller(metadata.file().unwrap_or(""), metadata.line().unwrap_or(0));
        event.record(&mut line);
        // The line's own level counts when it is more than error.
        if self.level > LogLevel::Error && line.level() != self.level.name() && level < self.level {
            return;
        }
        enqueue(log, line.finish(log.format).into_bytes());
    }
}
