//! Compaction: from this entry on nothing below the revision can be read. Deleting it is the driver's work.

use super::{
    outcome::{Applied, Effect},
    respond,
    state::{META_FINISHED_COMPACTION, META_SCHEDULED_COMPACTION, State},
    tree::Tree,
};
use crate::backend::Bucket;
use crate::base::Reject;
use crate::mvcc::encode_compaction_mark;
use crate::wire::proto::etcdserverpb::{AlarmType, CompactionRequest};

impl<T: Tree> State<T> {
    pub(super) fn apply_compaction(&mut self, request: &CompactionRequest) -> Applied {
        if self.alarms.is_raised(AlarmType::Corrupt) {
            return Applied::refused(Reject::Corrupt);
        }
        let mark = |key| self.tree.value(Bucket::Meta, key);
        let is_previous_finished = mark(META_SCHEDULED_COMPACTION) == mark(META_FINISHED_COMPACTION);
        match self.store.compact(request.revision, is_previous_finished) {
            Ok(compaction) => {
                let mark = encode_compaction_mark(request.revision);
                self.tree
                    .put(Bucket::Meta, META_SCHEDULED_COMPACTION, mark.to_vec().into());
                let header = self.header.at(self.store.current_revision());
                Applied {
                    answer: Some(Ok(respond::header_only(&header))),
                    effect: Some(Effect::Compact {
                        compaction: Box::new(compaction),
                        is_physical: request.physical,
                    }),
                    ..Applied::default()
                }
            }
            Err(reject) => Applied {
                answer: Some(Err(reject)),
                effect: (reject == Reject::Compacted).then_some(Effect::AwaitCompaction {
                    is_physical: request.physical,
                }),
                ..Applied::default()
            },
        }
    }
}
