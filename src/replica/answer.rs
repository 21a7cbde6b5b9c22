//! Reads: from a request that may be answered to its answer.

use bytes::Bytes;
use prost::Message;

use super::{cycle::Replica, outputs::Outputs, questions, scans::Scans};
use crate::{
    backend::Backend,
    base::{LeaseId, MemberId, Monotonic, Reject},
    host::Map,
    lease::Renewal,
    mvcc::RangeQuery,
    propose::{Admission, Call, Read, Reply, Request, Ticket, Write},
    wire::proto::etcdserverpb::{
        DowngradeInfo, LeaseCheckpoint, LeaseCheckpointRequest, LeaseKeepAliveResponse, LeaseTimeToLiveResponse,
        MemberListRequest, RangeRequest, ResponseHeader, StatusResponse, TxnRequest, request_op,
    },
    wire::status::Status,
};

/// What never changes in answers while a member runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// etcd's version that this server stands for, e.g. `3.6.14`.
    pub version: String,
    /// The data's version as 3.6 tells it, e.g. `3.5.0`.
    pub storage_version: String,
    /// Bytes that the database may have (`--quota-backend-bytes`); 0 for no bound.
    pub quota_bytes: u64,
    /// Feature gates: name, stage, whether it is on.
    pub features: Vec<(&'static str, &'static str, bool)>,
}

/// Answers a read from the store as it is; a long range goes to `scans` instead.
pub fn read<M: Map>(
    replica: &mut Replica<Backend<M>>,
    facts: &Facts,
    scans: &mut Scans,
    call: Call,
    now: Monotonic,
    outputs: &mut Outputs,
) {
    let Request::Read(read) = call.request else {
        unreachable!("only reads are answered here");
    };
    let is_leaders = matches!(read, Read::LeaseKeepAlive(_) | Read::LeaseTimeToLive(_));
    if is_leaders && !replica.consensus().is_leader() {
        outputs.for_leader.push(Call {
            ticket: call.ticket,
            request: Request::Read(read),
        });
        return;
    }
    let outcome = match read {
        Read::Range(request) => match range(replica, scans, call.ticket, &request) {
            Some(outcome) => outcome,
            None => return,
        },
        Read::Txn(request) if is_long(replica, &request) => {
            let call = Call {
                ticket: call.ticket,
                request: Request::Read(Read::Txn(request)),
            };
            if let Admission::Refused(call) = scans.queue_txn(call) {
                replica.refuse(call.ticket, outputs);
            }
            return;
        }
        Read::Txn(request) => replica.state().read_txn(&request),
        Read::LeaseKeepAlive(request) => {
            let id = request.id;
            let call = Call {
                ticket: call.ticket,
                request: Request::Read(Read::LeaseKeepAlive(request)),
            };
            match keep_alive(replica, call, id, now) {
                Some(outcome) => outcome,
                None => return,
            }
        }
        Read::LeaseTimeToLive(request) => replica.state().lease_time_to_live(&request, now),
        Read::LeaseLeases => Ok(replica.state().lease_leases()),
        Read::MemberList(MemberListRequest { .. }) => Ok(replica.state().member_list()),
        Read::Status => Ok(status(replica, facts)),
        Read::Ask(question) => {
            let outcome = questions::answer(replica, call.ticket.method, &question);
            outputs.answer(call.ticket, outcome);
            return;
        }
        // Laid on the desk by the driver just before.
        Read::Gauges => Ok(Bytes::new()),
        Read::Barrier { .. } => Ok(Bytes::new()),
    };
    outputs.answer(call.ticket, outcome);
}

/// Whether a transaction that changes nothing goes by slices: what it may list is more than a turn should.
fn is_long<M: Map>(replica: &Replica<Backend<M>>, request: &TxnRequest) -> bool {
    let store = replica.state().store();
    let ops = request.success.iter().chain(&request.failure);
    let keys = ops.map(|op| match &op.request {
        Some(request_op::Request::RequestRange(range)) if !range.range_end.is_empty() && !range.count_only => {
            // Of the past there may have been more.
            match range.revision <= 0 {
                true => store.count(crate::apply::range_query(range).span),
                false => u64::MAX,
            }
        }
        _ => 1,
    });
    keys.fold(0, u64::saturating_add) > replica.limits().list_at_once_keys_max
}

/// `None` if the range goes by slices.
fn range<M: Map>(
    replica: &mut Replica<Backend<M>>,
    scans: &mut Scans,
    ticket: Ticket,
    request: &RangeRequest,
) -> Option<Result<Bytes, Reject>> {
    let state = replica.state();
    let query: RangeQuery<'_> = crate::apply::range_query(request);
    let keys_at_once_max = replica.limits().list_at_once_keys_max;
    if request.range_end.is_empty() || (request.count_only && query.revision <= 0) {
        return Some(state.read_range(request));
    }
    if query.revision <= 0 && state.store().count(query.span) <= keys_at_once_max {
        let bytes_max = replica.limits().list_at_once_bytes_max;
        if let Some(outcome) = state.read_range_within(request, bytes_max).transpose() {
            return Some(outcome);
        }
    }
    match state.store().range_begin(&query) {
        Err(reject) => Some(Err(reject)),
        Ok(scan) => {
            let header = state.encoded_header(state.store().current_revision());
            let request_bytes = request.key.len() + request.range_end.len();
            let begun = scans.begin_range(replica, ticket, scan, header, request.keys_only, request_bytes);
            begun.err().map(Err)
        }
    }
}

/// `None` if the renewal waits for a checkpoint to be taken back.
fn keep_alive<M: Map>(
    replica: &mut Replica<Backend<M>>,
    call: Call,
    lease_id: i64,
    now: Monotonic,
) -> Option<Result<Bytes, Reject>> {
    let revision = replica.state().store().current_revision();
    let ttl = match replica.state_mut().lessor_mut().renew(LeaseId(lease_id), now) {
        Renewal::Renewed { ttl } => ttl,
        Renewal::NotFound => 0,
        Renewal::NotPrimary => return Some(Err(Reject::NoLeader)),
        Renewal::AwaitRevocation => {
            replica.postpone_renewal(call);
            return None;
        }
        Renewal::ClearCheckpoint => {
            let checkpoints = vec![LeaseCheckpoint {
                id: lease_id,
                remaining_ttl: 0,
            }];
            let clear = Write::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints });
            replica.propose_before(&clear, call, now);
            return None;
        }
    };
    Some(Ok(replica.state().lease_keep_alive_response(
        LeaseId(lease_id),
        revision,
        ttl,
    )))
}

/// The answer to a call that the leader has answered in this member's place. The header is this member's, but for the
/// revision: this member may be behind what the leader has answered from, and behind what the client has seen. A leader of
/// etcd's tells none.
pub fn relayed<M: Map>(replica: &Replica<Backend<M>>, call: &Call, answer: Result<Bytes, Status>) -> Reply {
    let state = replica.state();
    let revision_of = |header: Option<ResponseHeader>| {
        let told = header.map(|header| header.revision).filter(|revision| *revision > 0);
        told.unwrap_or(state.store().current_revision())
    };
    let outcome = answer.and_then(|message| match &call.request {
        Request::Read(Read::LeaseKeepAlive(request)) => {
            let response = LeaseKeepAliveResponse::decode(message).map_err(|_| Reject::Timeout)?;
            let revision = revision_of(response.header);
            Ok(state.lease_keep_alive_response(LeaseId(request.id), revision, response.ttl))
        }
        _ => {
            let mut response = LeaseTimeToLiveResponse::decode(message).map_err(|_| Reject::Timeout)?;
            let mut header = state.header_message();
            header.revision = revision_of(response.header.take());
            response.header = Some(header);
            Ok(response.encode_to_vec().into())
        }
    });
    Reply::whole(call.ticket, outcome)
}

fn status<M: Map>(replica: &Replica<Backend<M>>, facts: &Facts) -> Bytes {
    let (state, consensus) = (replica.state(), replica.consensus());
    let mut errors = Vec::new();
    if consensus.leader().is_none() {
        errors.push("etcdserver: no leader".to_owned());
    }
    for alarm in state.alarms().list(0) {
        let member = MemberId(alarm.member_id);
        errors.push(format!("memberID:{} alarm:{} ", member.0, alarm.alarm().as_str_name()));
    }
    let response = StatusResponse {
        header: Some(state.header_message()),
        version: facts.version.clone(),
        db_size: state.tree().size() as i64,
        leader: consensus.leader().map_or(0, |leader| leader.0),
        raft_index: consensus.committed().0,
        raft_term: consensus.term().0,
        raft_applied_index: state.applied().index.0,
        errors,
        db_size_in_use: state.tree().size_in_use() as i64,
        is_learner: false,
        storage_version: facts.storage_version.clone(),
        db_size_quota: facts.quota_bytes as i64,
        downgrade_info: Some(DowngradeInfo {
            enabled: false,
            target_version: String::new(),
        }),
    };
    response.encode_to_vec().into()
}
