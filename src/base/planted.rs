//! Bugs to order: faults of the kind that the simulator is there to find, behind a switch, so that its tests can show
//! that it finds them. Builds without debug assertions have neither the switch nor the bugs.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Writes of the log count as durable when they begin.
    AnswerBeforeDurable,
    /// The applied index is stored a commit later than what it stands for.
    AppliedApart,
    /// A watcher that is behind misses the last change of each piece of history.
    EventDropped,
    /// Leases end a second early.
    LeaseEarly,
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
