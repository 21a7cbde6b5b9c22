//! A leader's snapshot takes the place of everything a follower has: raft waits while its file becomes durable, then the
//! log's record of it, and then the state machine is another.

use raft::eraftpb::{HardState, Snapshot};

use super::cycle::Replica;
use crate::{
    apply::{State, Tree},
    base::{LogIndex, Term},
    wal::WalSnapshot,
};

/// How far a leader's snapshot is.
pub(super) enum Installing {
    /// Its file has to be durable before the log may say of it.
    File {
        snapshot: Box<Snapshot>,
        number: u64,
        hard_state: Option<HardState>,
    },
    /// The log has gathered its record.
    Record { snapshot: Box<Snapshot>, number: u64 },
    /// The state machine has to be replaced.
    State(Box<Snapshot>),
}

impl<T: Tree> Replica<T> {
    /// The leader's snapshot whose file is to be saved, if that is what raft waits for.
    pub fn snapshot_to_save(&self) -> Option<&Snapshot> {
        match &self.installing {
            Some(Installing::File { snapshot, .. }) => Some(snapshot),
            _ => None,
        }
    }

    /// The file of [`Replica::snapshot_to_save`] is durable: the log may say of it.
    pub fn snapshot_saved(&mut self) {
        let Some(Installing::File {
            snapshot,
            number,
            hard_state,
        }) = self.installing.take()
        else {
            unreachable!("a snapshot's file was to be saved");
        };
        let metadata = snapshot.get_metadata();
        self.log.append_snapshot(&WalSnapshot {
            index: LogIndex(metadata.index),
            term: Term(metadata.term),
            conf_state: Some(metadata.get_conf_state().clone()),
        });
        self.log.append(&[], hard_state.as_ref());
        self.gathered_number = number;
        self.installing = Some(Installing::Record { snapshot, number });
    }

    /// The leader's snapshot whose state machine is to take the place of this one: the log begins with it, durably.
    pub fn snapshot_to_open(&self) -> Option<&Snapshot> {
        match &self.installing {
            Some(Installing::State(snapshot)) => Some(snapshot),
            _ => None,
        }
    }

    /// Whether raft has handed over again what the state had applied before this life began. Until then it needs entries
    /// that the state does not, and does not know of every change of the members that the state knows of: no snapshot of
    /// the state is raft's.
    pub fn has_caught_up(&self) -> bool {
        self.consensus.applied_to() >= self.state.applied().index
    }

    /// Whether a leader's snapshot is being installed.
    pub fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// The snapshot's state machine takes the place of the old one, and raft goes on.
    pub fn replace_state(&mut self, state: State<T>) {
        let Some(Installing::State(snapshot)) = self.installing.take() else {
            unreachable!("a state was to be opened");
        };
        let index = LogIndex(snapshot.get_metadata().index);
        assert!(state.applied().index >= index, "a state that is behind its snapshot");
        self.consensus.applied(index);
        self.state = state;
    }
}
