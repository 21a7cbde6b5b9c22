//! Alarms: members that ran out of space or found their data corrupt. Any alarm of a kind, whoever raised it, closes the
//! gate of that kind on every member.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;

use super::{
    outcome::{Applied, Effect},
    state::State,
    tree::Tree,
};
use crate::backend::Bucket;
use crate::base::MemberId;
use crate::wire::proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, alarm_request::AlarmAction,
};

/// The alarms that are raised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    raised: BTreeSet<(i32, MemberId)>,
}

impl Alarms {
    /// From the keys of the bucket; those that are no alarm are given back.
    pub(super) fn restore<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Result<Alarms, Bytes> {
        let mut raised = BTreeSet::new();
        for key in keys {
            let alarm = AlarmMember::decode(key).map_err(|_| Bytes::copy_from_slice(key))?;
            raised.insert((alarm.alarm, MemberId(alarm.member_id)));
        }
        Ok(Alarms { raised })
    }

    /// Whether some member has this alarm raised.
    #[inline]
    pub fn is_raised(&self, alarm: AlarmType) -> bool {
        !self.raised.is_empty() && self.of(alarm as i32).next().is_some()
    }

    /// Alarms of one kind, or of all for [`AlarmType::None`], by kind and member.
    pub fn list(&self, alarm: i32) -> Vec<AlarmMember> {
        let wanted = |(kind, _): &&(i32, MemberId)| alarm == AlarmType::None as i32 || *kind == alarm;
        let raised = self.raised.iter().filter(wanted);
        raised.map(|(alarm, member)| alarm_member(*alarm, *member)).collect()
    }

    fn of(&self, alarm: i32) -> impl Iterator<Item = &(i32, MemberId)> {
        self.raised.range((alarm, MemberId(0))..=(alarm, MemberId(u64::MAX)))
    }
}

fn alarm_member(alarm: i32, member: MemberId) -> AlarmMember {
    AlarmMember {
        member_id: member.0,
        alarm,
    }
}

impl<T: Tree> State<T> {
    pub(super) fn apply_alarm(&mut self, request: &AlarmRequest) -> Applied {
        let member = MemberId(request.member_id);
        let alarm = request.alarm;
        let mut effect = None;
        let alarms = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => self.alarms.list(alarm),
            Ok(AlarmAction::Activate) if alarm != AlarmType::None as i32 => {
                let this = alarm_member(alarm, member);
                if self.alarms.raised.insert((alarm, member)) {
                    self.tree.put(Bucket::Alarm, &this.encode_to_vec(), Bytes::new());
                    effect = Some(true);
                }
                vec![this]
            }
            Ok(AlarmAction::Deactivate) if self.alarms.raised.remove(&(alarm, member)) => {
                let this = alarm_member(alarm, member);
                self.tree.delete(Bucket::Alarm, &this.encode_to_vec());
                effect = Some(false);
                vec![this]
            }
            Ok(AlarmAction::Activate | AlarmAction::Deactivate) | Err(_) => Vec::new(),
        };
        Applied {
            answer: Some(Ok(self.alarm_response(alarms))),
            effect: effect.map(|is_raised| Effect::AlarmChanged {
                alarm,
                member,
                is_raised,
            }),
            ..Applied::default()
        }
    }

    /// The answer to an alarm request that asks for a list.
    pub fn alarm_list(&self, alarm: i32) -> Bytes {
        self.alarm_response(self.alarms.list(alarm))
    }

    fn alarm_response(&self, alarms: Vec<AlarmMember>) -> Bytes {
        let response = AlarmResponse {
            header: Some(self.header_message()),
            alarms,
        };
        response.encode_to_vec().into()
    }
}
