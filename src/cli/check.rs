//! `check`: whether a data directory is sound, by itself and in what must agree between its files.
//!
//! Looked at are the database (pages, buckets, records and their order), the log (every record), the `.snap` files, and
//! the indexes that tie them together. Each finding is a line with its file and, where there is one, the offset.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use prost::Message;

use super::run::open_unused;
use crate::{
    backend::{self, BUCKETS, Bucket, Root},
    base::{LogIndex, Revision, Term},
    host::{Disk, File, Host, Map},
    snapshot::{SnapName, file as snap_file},
    wal::{
        WalFault,
        decoder::{LogDecoder, Record, RecordSink},
        read_log,
        record::RecordKind,
    },
    wire::proto::{leasepb, mvccpb::KeyValue, raftpb, walpb},
};

/// Findings printed of one file; a damaged file may have millions.
const FINDINGS_SHOWN_MAX: usize = 100;

/// # Errors
/// How many findings there are, or why the directory cannot be looked at.
pub(super) async fn check<H: Host>(host: &H, data_dir: &Path, print: &mut dyn FnMut(&str)) -> Result<(), String> {
    let member = data_dir.join("member");
    if !host
        .disk()
        .exists(&member)
        .await
        .map_err(|error| format!("{}: {error}", member.display()))?
    {
        return Err(format!("{} holds no member directory", data_dir.display()));
    }
    let mut findings = Findings {
        print,
        count: 0,
        shown: BTreeMap::new(),
    };
    let database = check_database(host, &member.join("snap").join("db"), &mut findings).await?;
    let log = check_log(host, &member.join("wal"), &mut findings).await?;
    let newest_snap = check_snap_files(host, &member.join("snap"), &log, &mut findings).await?;
    check_indexes(&member, &database, &log, newest_snap, &mut findings);
    match findings.count {
        0 => {
            print_summary(&database, &log, newest_snap, findings.print);
            Ok(())
        }
        count => Err(format!("{count} findings")),
    }
}

struct Findings<'a> {
    print: &'a mut dyn FnMut(&str),
    count: usize,
    shown: BTreeMap<PathBuf, usize>,
}

impl Findings<'_> {
    fn add(&mut self, file: &Path, what: &dyn std::fmt::Display) {
        self.count += 1;
        let shown = self.shown.entry(file.to_path_buf()).or_default();
        *shown += 1;
        match (*shown).cmp(&(FINDINGS_SHOWN_MAX + 1)) {
            std::cmp::Ordering::Less => (self.print)(&format!("{}: {what}\n", file.display())),
            std::cmp::Ordering::Equal => (self.print)(&format!("{}: more findings are not shown\n", file.display())),
            std::cmp::Ordering::Greater => {}
        }
    }
}

/// What the database says of itself.
#[derive(Debug, Default)]
struct DatabaseFacts {
    pages: u64,
    sealed_runs: u64,
    runs: u64,
    revision: i64,
    records: u64,
    applied: Option<LogIndex>,
    term: Option<Term>,
}

async fn check_database<H: Host>(host: &H, path: &Path, findings: &mut Findings<'_>) -> Result<DatabaseFacts, String> {
    let (file, size) = open_unused(host, path).await?;
    let map = file
        .map(size)
        .map_err(|error| format!("map {}: {error}", path.display()))?;
    let mut facts = DatabaseFacts::default();
    let report = match backend::check(map.clone(), size) {
        Ok(report) => report,
        Err(fault) => {
            findings.add(path, &fault);
            return Ok(facts);
        }
    };
    (facts.pages, facts.runs, facts.sealed_runs) = (report.page_count, report.run_count, report.sealed_count);
    for fault in &report.faults {
        findings.add(path, fault);
    }
    if !report.faults.is_empty() {
        return Ok(facts);
    }
    let root = match backend::open_root(map.clone(), size) {
        Ok(root) => root,
        Err(fault) => {
            findings.add(path, &fault);
            return Ok(facts);
        }
    };
    let base = map.bytes(0, 1).as_ptr() as usize;
    for bucket in BUCKETS {
        if !root.has_bucket(bucket) {
            findings.add(path, &format!("bucket {:?} is missing", bucket.name()));
        }
        check_bucket(&root, bucket, base, path, &mut facts, findings);
    }
    Ok(facts)
}

fn check_bucket<M: Map>(
    root: &Root<M>,
    bucket: Bucket,
    base: usize,
    path: &Path,
    facts: &mut DatabaseFacts,
    findings: &mut Findings<'_>,
) {
    let mut cursor = root.cursor(bucket);
    let mut pair = cursor.seek_first();
    loop {
        match pair {
            Ok(Some((key, value))) => {
                if let Err(what) = check_pair(bucket, key, value, facts) {
                    // The map is one run of memory, so a key's place in it is its place in the file.
                    let offset = (key.as_ptr() as usize).wrapping_sub(base);
                    findings.add(
                        path,
                        &format!("bucket {:?} at file offset {offset}: {what}", bucket.name()),
                    );
                }
            }
            Ok(None) => return,
            Err(fault) => return findings.add(path, &fault),
        }
        pair = cursor.step();
    }
}

/// Whether one pair is what etcd would have put there.
fn check_pair(bucket: Bucket, key: &[u8], value: &[u8], facts: &mut DatabaseFacts) -> Result<(), String> {
    match bucket {
        Bucket::Key => {
            let (revision, is_tombstone) =
                Revision::decode(key).ok_or_else(|| format!("key {key:02x?} is no revision"))?;
            let name = format!("revision {}.{}", revision.main, revision.sub);
            facts.revision = facts.revision.max(revision.main);
            facts.records += 1;
            // A restore that raises the revision leaves one without a value.
            if value.is_empty() {
                return Ok(());
            }
            let record = KeyValue::decode(value).map_err(|error| format!("{name} has no readable value: {error}"))?;
            if record.key.is_empty() {
                return Err(format!("{name} has an empty key"));
            }
            if !is_tombstone && record.mod_revision != revision.main {
                return Err(format!("{name} says that it is revision {}", record.mod_revision));
            }
            if !is_tombstone && (record.create_revision > record.mod_revision || record.version < 1) {
                let (created, version) = (record.create_revision, record.version);
                return Err(format!("{name} was created at {created} and has version {version}"));
            }
        }
        Bucket::Meta => match key {
            b"consistent_index" => facts.applied = Some(LogIndex(number(key, value)?)),
            b"term" => facts.term = Some(Term(number(key, value)?)),
            b"scheduledCompactRev" | b"finishedCompactRev" if Revision::decode(value).is_none() => {
                return Err(format!("{} is no revision", String::from_utf8_lossy(key)));
            }
            _ => {}
        },
        Bucket::Lease => {
            let lease = leasepb::Lease::decode(value).map_err(|error| format!("a lease cannot be read: {error}"))?;
            if key != lease.id.to_be_bytes() {
                return Err(format!("lease {:x} stands under {key:02x?}", lease.id));
            }
        }
        Bucket::Members => {
            let id =
                crate::member::json::parse_member_key(key).ok_or_else(|| format!("{key:02x?} is no member's id"))?;
            let (member, _) =
                crate::member::json::parse_member(value).ok_or_else(|| format!("member {id:x} cannot be read"))?;
            if member.id != id {
                return Err(format!("member {:x} stands under {id:x}", member.id));
            }
        }
        Bucket::MembersRemoved if crate::member::json::parse_member_key(key).is_none() => {
            return Err(format!("{key:02x?} is no member's id"));
        }
        _ => {}
    }
    Ok(())
}

fn number(key: &[u8], value: &[u8]) -> Result<u64, String> {
    let bytes = value
        .try_into()
        .map_err(|_| format!("{} is no number", String::from_utf8_lossy(key)))?;
    Ok(u64::from_be_bytes(bytes))
}

/// What the log says.
#[derive(Debug, Default)]
struct LogFacts {
    records: u64,
    /// The newest index, and its term, that the log has an entry for.
    first: Option<u64>,
    last: u64,
    commit: u64,
    term: u64,
    has_metadata: bool,
    snapshots: Vec<(u64, u64)>,
    findings: Vec<String>,
}

async fn check_log<H: Host>(host: &H, directory: &Path, findings: &mut Findings<'_>) -> Result<LogFacts, String> {
    let mut facts = LogFacts::default();
    if !host
        .disk()
        .exists(directory)
        .await
        .map_err(|error| format!("{}: {error}", directory.display()))?
    {
        findings.add(directory, &"there is no log (a --wal-dir elsewhere is not looked at)");
        return Ok(facts);
    }
    if let Err(fault) = read_log(host, directory, &mut facts).await {
        findings.add(directory, &fault);
    }
    for finding in std::mem::take(&mut facts.findings) {
        findings.add(directory, &finding);
    }
    if !facts.has_metadata {
        findings.add(directory, &"the log has no metadata");
    }
    if facts.commit > facts.last {
        let (commit, last) = (facts.commit, facts.last);
        findings.add(
            directory,
            &format!("entries are committed up to {commit}, but the log ends at {last}"),
        );
    }
    Ok(facts)
}

impl RecordSink for LogFacts {
    fn take(&mut self, record: Record<'_>, decoder: &LogDecoder) -> Result<(), WalFault> {
        self.records += 1;
        let readable = match record.kind {
            RecordKind::Metadata => {
                self.has_metadata = true;
                walpb::Metadata::decode(record.data).is_ok()
            }
            RecordKind::Entry => self.take_entry(record.data, decoder),
            RecordKind::HardState => match raftpb::HardState::decode(record.data) {
                Ok(state) => {
                    (self.commit, self.term) = (state.commit(), state.term());
                    true
                }
                Err(_) => false,
            },
            RecordKind::Snapshot => match walpb::Snapshot::decode(record.data) {
                Ok(snapshot) => {
                    self.last = self.last.max(snapshot.index());
                    self.snapshots.push((snapshot.term(), snapshot.index()));
                    true
                }
                Err(_) => false,
            },
            RecordKind::Crc => true,
        };
        if !readable {
            self.findings
                .push(format!("a record cannot be read: {}", decoder.position()));
        }
        Ok(())
    }
}

impl LogFacts {
    fn take_entry(&mut self, data: &[u8], decoder: &LogDecoder) -> bool {
        let Ok(entry) = raftpb::Entry::decode(data) else {
            return false;
        };
        let index = entry.index();
        // A new leader may have entries rewritten, never skipped.
        if self.first.is_some() && index > self.last + 1 {
            let last = self.last;
            self.findings
                .push(format!("entry {index} follows entry {last}: {}", decoder.position()));
        }
        self.first.get_or_insert(index);
        self.last = index;
        true
    }
}

/// The newest `.snap` file that can be used.
async fn check_snap_files<H: Host>(
    host: &H,
    directory: &Path,
    log: &LogFacts,
    findings: &mut Findings<'_>,
) -> Result<Option<SnapName>, String> {
    let shown = directory.display();
    let names = host
        .disk()
        .list(directory)
        .await
        .map_err(|error| format!("{shown}: {error}"))?;
    let mut newest: Option<SnapName> = None;
    for name in names {
        let Some(parsed) = SnapName::parse(&name) else { continue };
        let path = directory.join(&name);
        let bytes = host
            .disk()
            .read_file(&path)
            .await
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let snapshot = match snap_file::decode(&bytes) {
            Ok(snapshot) => snapshot,
            Err(fault) => {
                findings.add(&path, &fault);
                continue;
            }
        };
        if SnapName::of(&snapshot) != parsed {
            let (term, index) = (snapshot.get_metadata().term, snapshot.get_metadata().index);
            findings.add(&path, &format!("its content is of term {term} and index {index}"));
            continue;
        }
        let is_known = log.snapshots.contains(&(parsed.term.0, parsed.index.0));
        let is_newer = newest
            .as_ref()
            .is_none_or(|newest| (newest.term, newest.index) < (parsed.term, parsed.index));
        if is_known && is_newer {
            newest = Some(parsed);
        }
    }
    Ok(newest)
}

/// What must agree between the files.
fn check_indexes(
    member: &Path,
    database: &DatabaseFacts,
    log: &LogFacts,
    snap: Option<SnapName>,
    findings: &mut Findings<'_>,
) {
    let path = member.join("snap").join("db");
    let applied = database.applied.map_or(0, |index| index.0);
    // That the log says of fewer entries that they are committed is in order: how far they are is written with the next
    // entry, and the next election finds it out again.
    if applied > log.last {
        let last = log.last;
        findings.add(
            &path,
            &format!("entries are applied up to {applied}, but the log ends at {last}"),
        );
    }
    if database.term.is_some_and(|term| term.0 > log.term) {
        let term = log.term;
        findings.add(&path, &format!("the applied term is beyond the log's, which is {term}"));
    }
    let first = log.first.unwrap_or(log.last + 1);
    let reaches_back_to = snap.as_ref().map_or(0, |snap| snap.index.0);
    if let Some(snap) = snap.filter(|snap| snap.index.0 > applied && applied > 0) {
        let index = snap.index;
        findings.add(
            &path,
            &format!("entries are applied up to {applied}, behind the snapshot file at {index}"),
        );
    }
    if first > reaches_back_to + 1 && first > applied + 1 {
        findings.add(
            &member.join("wal"),
            &format!(
                "the log begins at {first}; entries behind {} are missing",
                applied.max(reaches_back_to)
            ),
        );
    }
}

fn print_summary(database: &DatabaseFacts, log: &LogFacts, snap: Option<SnapName>, print: &mut dyn FnMut(&str)) {
    print(&format!(
        "database: {} pages in {} runs, {} of them sealed; {} records up to revision {}; applied index {}\n",
        database.pages,
        database.runs,
        database.sealed_runs,
        database.records,
        database.revision,
        database.applied.map_or(0, |index| index.0),
    ));
    print(&format!(
        "log: {} records; entries {} to {}, committed up to {}, term {}\n",
        log.records,
        log.first.unwrap_or(0),
        log.last,
        log.commit,
        log.term,
    ));
    match snap {
        Some(snap) => print(&format!("snapshot: term {}, index {}\n", snap.term, snap.index)),
        None => print("snapshot: none\n"),
    }
    print("no findings\n");
}
