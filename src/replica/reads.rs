//! Linearizable reads: one question to the cluster at a time, shared by all reads that gathered before it was asked.
//!
//! ```text
//! waiting ─ask─▶ asked (context) ─confirmed─▶ confirmed (index) ─applied ≥ index─▶ ready
//!    ▲              │
//!    └── retry ─────┘   raft drops a question silently when it has no leader, so that it is asked again, anew
//! ```
//!
//! A read may only share a question that was asked after the read arrived: otherwise the answer could predate a write
//! that the reader knows of.

use std::{collections::VecDeque, time::Duration};

use crate::base::{
    LogIndex, MemberId, Monotonic,
    planted::{Planted, is_planted},
};

/// Time after which a question that got no answer is asked again (etcd: 500 ms).
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Reads on their way to being allowed.
#[derive(Debug)]
pub struct ReadQueue<T> {
    waiting: VecDeque<(Monotonic, T)>,
    asked: Option<Asked<T>>,
    confirmed: VecDeque<(LogIndex, VecDeque<(Monotonic, T)>)>,
    /// The upper half is the member's, so that no two members ask with one context.
    context: u64,
}

#[derive(Debug)]
struct Asked<T> {
    context: u64,
    at: Monotonic,
    reads: VecDeque<(Monotonic, T)>,
}

impl<T> ReadQueue<T> {
    /// An empty queue. `entropy` makes contexts of this run differ from those of earlier ones.
    pub fn new(member_id: MemberId, entropy: u64) -> ReadQueue<T> {
        let context = (member_id.0 << 32) ^ (entropy & 0xffff_ffff);
        ReadQueue {
            waiting: VecDeque::new(),
            asked: None,
            confirmed: VecDeque::new(),
            context,
        }
    }

    /// A read arrives.
    pub fn push(&mut self, now: Monotonic, read: T) {
        self.waiting.push_back((now, read));
    }

    /// The context to ask raft with, if it is time for a question.
    pub fn ask(&mut self, now: Monotonic) -> Option<u64> {
        if let Some(asked) = &mut self.asked {
            if now.since(asked.at) < RETRY_AFTER {
                return None;
            }
            // Those who wait may share the new question; the old one's answer, should it still come, is ignored.
            asked.reads.append(&mut self.waiting);
            std::mem::swap(&mut asked.reads, &mut self.waiting);
            if is_planted(Planted::ReadContextReused) {
                self.context = asked.context.wrapping_sub(1);
            }
            self.asked = None;
        }
        if self.waiting.is_empty() {
            return None;
        }
        self.context = self.context.wrapping_add(1);
        let reads = std::mem::take(&mut self.waiting);
        self.asked = Some(Asked {
            context: self.context,
            at: now,
            reads,
        });
        Some(self.context)
    }

    /// The question may have gone to a leader that leads no more: the next [`ReadQueue::ask`] asks anew.
    pub fn ask_again(&mut self) {
        if let Some(mut asked) = self.asked.take() {
            asked.reads.append(&mut self.waiting);
            self.waiting = asked.reads;
        }
    }

    /// raft confirms the question of this context: its reads may see the store as of `index` or later. Answers to
    /// questions that were given up are ignored; `false` then.
    pub fn confirm(&mut self, context: u64, index: LogIndex) -> bool {
        match self
            .asked
            .take_if(|asked| asked.context == context || is_planted(Planted::ReadAnswerMistaken))
        {
            Some(asked) => {
                self.confirmed.push_back((index, asked.reads));
                true
            }
            None => false,
        }
    }

    /// The next read that the store, applied up to `applied`, may answer.
    pub fn pop_ready(&mut self, applied: LogIndex) -> Option<T> {
        loop {
            let (index, reads) = self.confirmed.front_mut()?;
            if *index > applied {
                return None;
            }
            match reads.pop_front() {
                Some((_, read)) => return Some(read),
                None => self.confirmed.pop_front(),
            };
        }
    }

    /// The next read that arrived before `earliest` and is still not allowed.
    pub fn pop_expired(&mut self, earliest: Monotonic) -> Option<T> {
        let queues = self.confirmed.iter_mut().map(|(_, reads)| reads);
        let asked = self.asked.iter_mut().map(|asked| &mut asked.reads);
        for reads in queues.chain(asked).chain([&mut self.waiting]) {
            if reads.front().is_some_and(|(arrived, _)| *arrived < earliest) {
                return reads.pop_front().map(|(_, read)| read);
            }
        }
        None
    }

    /// When [`ReadQueue::ask`] wants to be called again, if a question is open.
    pub fn retry_at(&self) -> Option<Monotonic> {
        self.asked.as_ref().map(|asked| asked.at + RETRY_AFTER)
    }

    /// Whether no read is on its way.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.asked.is_none() && self.confirmed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> ReadQueue<u32> {
        ReadQueue::new(MemberId(7), 0)
    }

    const START: Monotonic = Monotonic(1_000_000_000);

    #[test]
    fn reads_share_the_question_that_was_asked_after_them() {
        let mut reads = queue();
        reads.push(START, 1);
        reads.push(START, 2);
        let first = reads.ask(START).unwrap();
        reads.push(START, 3);
        assert_eq!(reads.ask(START), None, "one question at a time");
        assert!(reads.confirm(first, LogIndex(5)));
        assert_eq!(reads.pop_ready(LogIndex(4)), None);
        assert_eq!(reads.pop_ready(LogIndex(5)), Some(1));
        assert_eq!(reads.pop_ready(LogIndex(5)), Some(2));
        assert_eq!(
            reads.pop_ready(LogIndex(5)),
            None,
            "the third read arrived after the question"
        );
        let second = reads.ask(START).unwrap();
        assert!(reads.confirm(second, LogIndex(5)));
        assert_eq!(reads.pop_ready(LogIndex(5)), Some(3));
        assert!(reads.pop_ready(LogIndex(5)).is_none() && reads.is_empty());
    }

    #[test]
    fn an_unanswered_question_is_asked_anew_and_its_late_answer_ignored() {
        let mut reads = queue();
        reads.push(START, 1);
        let lost = reads.ask(START).unwrap();
        reads.push(START, 2);
        let retry_at = reads.retry_at().unwrap();
        let again = reads.ask(retry_at).unwrap();
        assert_ne!(lost, again);
        assert!(!reads.confirm(lost, LogIndex(1)));
        assert!(reads.confirm(again, LogIndex(1)));
        assert_eq!(reads.pop_ready(LogIndex(1)), Some(1));
        assert_eq!(reads.pop_ready(LogIndex(1)), Some(2));
    }

    #[test]
    fn reads_expire_wherever_they_are() {
        let mut reads = queue();
        reads.push(START, 1);
        let context = reads.ask(START).unwrap();
        reads.confirm(context, LogIndex(100));
        reads.push(START, 2);
        reads.ask(START);
        reads.push(START, 3);
        let later = START + Duration::from_secs(1);
        reads.push(later, 4);
        let expired: Vec<_> = std::iter::from_fn(|| reads.pop_expired(later)).collect();
        assert_eq!(expired, [1, 2, 3]);
    }
}
