//! What a member asks of the leader past raft's log: leases are renewed, and their time is known, there alone. etcd asks
//! over HTTP on the peers' port (`/leases`, `/leases/internal`); here question and answer are plain values.

use std::{cell::RefCell, rc::Rc};

use bytes::Bytes;

use crate::{host::Notify, wire::status::Status};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Renew a lease.
    KeepAlive {
        /// The lease.
        lease_id: i64,
    },
    /// How long a lease has to go.
    TimeToLive {
        /// The lease.
        lease_id: i64,
        /// Whether its keys are wanted.
        keys: bool,
    },
}

/// The encoded response message (`LeaseKeepAliveResponse`, `LeaseTimeToLiveResponse`), or why there is none.
pub type Answer = Result<Bytes, Status>;

/// The way back to who asked. Dropped without an answer, it says that there will be none.
#[derive(Debug, Default)]
pub struct Asker {
    state: Rc<AskerState>,
}

#[derive(Debug, Default)]
struct AskerState {
    /// `None` inside: there will be none.
    answer: RefCell<Option<Option<Answer>>>,
    told: Notify,
}

impl Asker {
    /// Answers.
    pub fn answer(self, answer: Answer) {
        *self.state.answer.borrow_mut() = Some(Some(answer));
    }

    /// Waits for the answer; `None` if there will be none.
    pub(super) fn answered(&self) -> impl Future<Output = Option<Answer>> + 'static {
        let state = self.state.clone();
        async move {
            loop {
                if let Some(answer) = state.answer.borrow_mut().take() {
                    return answer;
                }
                state.told.notified().await;
            }
        }
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.state.answer.borrow_mut().get_or_insert(None);
        self.state.told.notify();
    }
}
