//! What a scenario is made of: its head, and its steps, as plain data. `parse` reads them, `stage` and `actor` carry them out.

use std::{fmt, ops::RangeInclusive, time::Duration};

use ringd::testing::{Trap, Unsynced};

use crate::history::Request;

/// A scenario.
#[derive(Debug)]
pub struct Scenario {
    /// Its file's name without the ending.
    pub name: String,
    /// Members.
    pub members: usize,
    /// Flags besides those that all scenarios have.
    pub flags: Vec<String>,
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// It takes long, and is played when it is named, or with `RINGD_SLOW=1`.
    pub is_slow: bool,
    /// Bugs to order that make it fail.
    pub catches: Vec<String>,
    /// What happens.
    pub steps: Vec<Line>,
}

/// A step with its place.
#[derive(Debug)]
pub struct Line {
    /// From 1.
    pub number: usize,
    /// As it is written.
    pub text: String,
    /// What it says.
    pub step: Step,
}

/// Something that happens, or that must hold. Members have names: `m0` and so on, and those that `roles` gives.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Step {
    Start(Vec<String>),
    Stop(String),
    Kill(Vec<String>),
    PowerCut(Vec<String>, Unsynced),
    CrashAt(String, Trap),
    Pause(String),
    Resume(String),
    /// The first no longer reaches the second.
    Cut(String, String),
    Partition(String, String),
    Isolate(String),
    /// All ways are open again.
    Heal,
    Disk(String, DiskState),
    /// A bit of a member's database turns over, in the page of this number that has something in it.
    Rot(String, u64),
    ClockJump(String, i64),
    ClockDrift(String, i32),
    /// Names the leader, and the others in the order of their places.
    Roles(Vec<String>),
    Sleep(Duration),
    Ask(Ask),
    /// The answer to what a client has begun.
    Answer(String, Expected),
    /// A client or watcher is told nothing for so long.
    Silent(String, Duration),
    Fill(Fill),
    Watch(Watch),
    Progress(String),
    Close(String),
    /// A watcher reads nothing for so long.
    Slow(String, Duration),
    Told(String, Told),
    /// Until it holds.
    Wait(Condition, Duration),
    /// It holds now.
    Expect(Condition),
}

/// A request of a client to a member.
#[derive(Debug)]
pub struct Ask {
    pub client: String,
    pub member: String,
    pub request: Request,
    /// Whether the scenario goes on before it is answered.
    pub is_begun: bool,
    pub expected: Expected,
}

/// Many puts, one after the other: `PREFIX1` and so on.
#[derive(Debug)]
pub struct Fill {
    pub client: String,
    pub member: String,
    pub prefix: String,
    pub count: u64,
    pub value_bytes: usize,
    /// Whether it ends with the first that is not acknowledged, which is no mistake then.
    pub may_fail: bool,
}

/// A new watcher on a stream of its own.
#[derive(Debug)]
pub struct Watch {
    pub watcher: String,
    pub member: String,
    pub key: String,
    pub is_prefix: bool,
    pub from: i64,
    pub has_progress: bool,
    pub has_previous: bool,
}

/// What a disk is like.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum DiskState {
    Sound,
    /// All writes and syncs fail.
    Fails,
    /// All syncs fail.
    SyncFails,
    /// Every operation takes so much longer.
    Stalls(Duration),
    /// Files may not grow.
    Full,
}

/// Of these one must be the answer.
#[derive(Debug)]
pub struct Expected(pub Vec<Outcome>);

/// An answer, as far as it matters.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Outcome {
    Ok,
    Value(String),
    NoValue,
    Count(i64),
    Deleted(i64),
    Succeeded(bool),
    Ttl(RangeInclusive<i64>),
    Leases(Vec<i64>),
    Revision(i64),
    /// As many keys as the last `fill` had acknowledged, or one more.
    Acknowledged,
    /// Any error, or no answer in time.
    Error,
    /// Code and text; without a code any.
    Status(Option<String>, String),
}

/// What a watcher is told.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Told {
    Created,
    Put {
        key: String,
        value: Option<String>,
        revision: i64,
    },
    Delete {
        key: String,
        revision: i64,
    },
    /// Events of all these revisions, in order, one each.
    Revisions(RangeInclusive<i64>),
    Progress(i64),
    /// With this compact revision.
    Compacted(i64),
    /// Events from this revision on, one each and in order, until it is canceled with that compact revision.
    RevisionsUntilCompacted {
        from: i64,
        compacted: i64,
    },
    /// The stream ends.
    End,
}

/// What can be looked at.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Condition {
    /// A member knows that one leads: itself, or as another sees it.
    Leader {
        leader: String,
        at: String,
    },
    /// A member leads that is not this one, as another sees it.
    OtherLeader {
        than: String,
        at: String,
    },
    NoLeader(String),
    Revision(String, i64),
    /// Its server has ended by itself, with this in its last words.
    Down(String, String),
    /// The trap has closed.
    Crashed(String),
    /// Members that are up are at one revision and tell one hash.
    EqualHash,
    /// What a member that is down has left is whole.
    Sound(String),
    /// A member has a file whose name ends so.
    HasFile(String, String),
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.number, self.text)
    }
}
