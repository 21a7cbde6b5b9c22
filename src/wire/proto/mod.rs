//! etcd's messages, generated from `proto/` (its freshness is tested by `tests/proto.rs`). `bytes` fields are
//! [`bytes::Bytes`]: what is decoded from a `Bytes` shares its memory.
#![allow(missing_docs, clippy::all)]

pub mod authpb {
    include!("authpb.rs");
}
pub mod etcdserverpb {
    include!("etcdserverpb.rs");
}
pub mod healthpb {
    include!("grpc.health.v1.rs");
}
pub mod leasepb {
    include!("leasepb.rs");
}
pub mod membershippb {
    include!("membershippb.rs");
}
pub mod mvccpb {
    include!("mvccpb.rs");
}
pub mod raftpb {
    include!("raftpb.rs");
}
pub mod v3electionpb {
    include!("v3electionpb.rs");
}
pub mod v3lockpb {
    include!("v3lockpb.rs");
}
pub mod walpb {
    include!("walpb.rs");
}
