//! What can be wrong with a database file, and with the machine under it.

use std::{fmt, io};

/// A page that is not what its place in the tree calls for. Found while reading; never a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Number of the page.
    pub page: u64,
    /// Where in the file the fault was seen, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub kind: FaultKind,
}

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The page number, or its overflow, lies beyond the last page in use.
    OutOfRange,
    /// The page says that it is another one.
    WrongId(u64),
    /// Its type does not fit its place.
    WrongType(u16),
    /// Its elements do not fit into it.
    ElementsOverrun,
    /// A key or value lies outside of it.
    ElementOutOfPage,
    /// A key is empty.
    EmptyKey,
    /// Keys are not in ascending order, or leave the range that the branch above gives.
    KeyOrder,
    /// A branch without children.
    EmptyBranch,
    /// The tree is deeper than any that could be written.
    TooDeep,
    /// A bucket's header or inline page is malformed.
    BadBucket,
    /// Content does not match the checksum that was written with it.
    Checksum,
    /// The page is reached twice.
    ReachedTwice,
    /// The page is in use and free at once.
    FreeInUse,
    /// The page is neither in use nor free.
    Lost,
    /// The free list names a page twice, or one that cannot be free.
    BadFreelist,
    /// More elements than a page can count.
    TooManyElements,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {} (file offset {}): ", self.page, self.offset)?;
        match self.kind {
            FaultKind::OutOfRange => f.write_str("lies beyond the last page in use"),
            FaultKind::WrongId(id) => write!(f, "says that it is page {id}"),
            FaultKind::WrongType(flags) => write!(f, "has type {flags:#x}, which does not belong here"),
            FaultKind::ElementsOverrun => f.write_str("has more elements than fit into it"),
            FaultKind::ElementOutOfPage => f.write_str("has an element that lies outside of it"),
            FaultKind::EmptyKey => f.write_str("has an empty key"),
            FaultKind::KeyOrder => f.write_str("has keys out of order"),
            FaultKind::EmptyBranch => f.write_str("is a branch without children"),
            FaultKind::TooDeep => f.write_str("is deeper than a tree can be"),
            FaultKind::BadBucket => f.write_str("has a malformed bucket"),
            FaultKind::Checksum => f.write_str("does not match its checksum"),
            FaultKind::ReachedTwice => f.write_str("is reached twice"),
            FaultKind::FreeInUse => f.write_str("is in use and free"),
            FaultKind::Lost => f.write_str("is neither in use nor free"),
            FaultKind::BadFreelist => f.write_str("is a malformed free list"),
            FaultKind::TooManyElements => f.write_str("has too many elements"),
        }
    }
}

impl std::error::Error for Fault {}

/// Why a database file cannot be opened.
#[derive(Debug)]
pub enum OpenFault {
    /// The file could not be read, written or mapped: what was tried, and the error.
    Io(&'static str, io::Error),
    /// Another process has the file's lock.
    Locked,
    /// Not a bbolt file: the magic number is missing from both metas.
    NotDatabase,
    /// A bbolt file of another version.
    Version(u32),
    /// Both metas are damaged.
    MetasInvalid,
    /// The file ends before its last page in use.
    TooSmall {
        /// Length of the file in bytes.
        size: u64,
        /// Length that its meta calls for, in bytes.
        needed: u64,
    },
    /// A page is damaged.
    Page(Fault),
}

impl fmt::Display for OpenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenFault::Io(operation, error) => write!(f, "cannot {operation} the database file: {error}"),
            OpenFault::Locked => f.write_str("the database file is in use by another process"),
            OpenFault::NotDatabase => f.write_str("not a database file"),
            OpenFault::Version(version) => write!(f, "database file of version {version}, where 2 is known"),
            OpenFault::MetasInvalid => f.write_str("both meta pages of the database file are damaged"),
            OpenFault::TooSmall { size, needed } => {
                write!(f, "the database file has {size} bytes, but its pages take {needed}")
            }
            OpenFault::Page(fault) => write!(f, "database file damaged: {fault}"),
        }
    }
}

impl std::error::Error for OpenFault {}

impl From<Fault> for OpenFault {
    fn from(fault: Fault) -> OpenFault {
        OpenFault::Page(fault)
    }
}

/// Why the store had to stop. After any of these the file holds its last committed state, or an unknown one if a sync
/// failed: the process ends.
#[derive(Debug)]
pub enum StoreFault {
    /// A file operation failed: which, and how.
    Io(&'static str, io::Error),
    /// A page that was to be changed or copied is damaged.
    Page(Fault),
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreFault::Io(operation, error) => write!(f, "cannot {operation} the database file: {error}"),
            StoreFault::Page(fault) => write!(f, "database file damaged: {fault}"),
        }
    }
}

impl std::error::Error for StoreFault {}

impl From<Fault> for StoreFault {
    fn from(fault: Fault) -> StoreFault {
        StoreFault::Page(fault)
    }
}
