//! Bugs to order: faults of the kind that the simulator is there to find, behind a switch, so that its tests can show
//! that it finds them. Builds without debug assertions have neither the switch nor the bugs.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Writes of the log count as durable when they begin.
    AnswerBeforeDurable,
    /// A follower says that it has entries before they are durable.
    AppendAnsweredEarly,
    /// A put with a lease is refused where the member's own clock says that the lease is about to end.
    ApplyByClock,
    /// The applied index is stored a commit later than what it stands for.
    AppliedApart,
    /// A key that is put without a lease stays with the lease that it had.
    AttachmentKept,
    /// Which keys belong to leases is not found again at a restart.
    AttachmentsForgotten,
    /// A segment's checksums do not go on from the one before.
    ChecksumRestarted,
    /// A compaction counts as done after its first slice.
    CompactionCutShort,
    /// A compaction takes what is still readable.
    CompactionGreedy,
    /// Watchers hear of a compaction before they are told what was changed in the same turn.
    CompactionToldFirst,
    /// What is committed while a file is defragmented is missing from its successor.
    DefragmentForgets,
    /// A watcher that is behind misses the last change of each piece of history.
    EventDropped,
    /// A watcher that is behind is told of each change twice.
    EventTwice,
    /// A log whose head is there without the entries that found its cluster is taken as it is.
    FoundingCutShort,
    /// A member goes on to end leases by its own clock when it leads no longer.
    LeaseByFollower,
    /// Leases end a second early.
    LeaseEarly,
    /// Leases never end.
    LeaseImmortal,
    /// The log is written and not synced.
    LogSyncSkipped,
    /// A commit's meta page may be durable before its pages.
    MetaBeforeData,
    /// Pages are used again while a reader, or the version before, needs them.
    PagesReusedEarly,
    /// Events come without the record before.
    PreviousForgotten,
    /// Progress is told for watchers that are behind.
    ProgressAhead,
    /// Progress is told for watchers whose start is yet to come.
    ProgressOfFuture,
    /// Progress that was asked for while a watcher was behind is never told.
    ProgressWithheld,
    /// A late answer to an earlier question about reads counts for the one that is open.
    ReadAnswerMistaken,
    /// A read is answered before what was committed when it came is applied.
    ReadBeforeApplied,
    /// A question for the read index that is asked again, for later reads too, has the number that it had.
    ReadContextReused,
    /// A leader answers for reads without asking the others.
    ReadUnconfirmed,
    /// A leader that hands over answers reads without asking the others.
    ReadWhileHandingOver,
    /// Names of the log's segments are not synced.
    SegmentNameUnsynced,
    /// A member that starts from a snapshot counts an entry as applied that the snapshot does not have.
    SnapshotIndexAhead,
    /// Watchers are not told of what a leader's snapshot brings.
    SnapshotUntold,
    /// A snapshot is read from a version that may be written over.
    SnapshotUnpinned,
    /// A sync that failed is done again, and counts if that succeeds.
    SyncErrorRetried,
    /// A vote is given before it is durable.
    VoteAnsweredEarly,
    /// Writes of the log that fail count as done.
    WriteErrorIgnored,
}

#[cfg(debug_assertions)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Planted>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug on this thread, or takes it away.
#[cfg(debug_assertions)]
pub fn plant(bug: Option<Planted>) {
    PLANTED.set(bug);
}

/// Whether a bug is planted on this thread.
#[inline(always)]
pub fn is_planted(bug: Planted) -> bool {
    #[cfg(debug_assertions)]
    {
        PLANTED.get() == Some(bug)
    }
    #[cfg(not(debug_assertions))]
    {
        _ = bug;
        false
    }
}
