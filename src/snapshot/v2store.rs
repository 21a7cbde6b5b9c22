//! (API; bodies follow.) The v2 store's JSON.
use crate::base::MemberId;

/// What of the v2 store still has a meaning: the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreImage {
    /// Members, in order of id.
    pub members: Vec<StoreMember>,
    /// Members that were removed and must not come back.
    pub removed: Vec<MemberId>,
    /// Cluster version as `3.5.0`, once it is set.
    pub cluster_version: Option<String>,
}

/// One member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreMember {
    /// Its id.
    pub id: MemberId,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Whether it does not vote.
    pub is_learner: bool,
    /// Its name; empty before it has published it.
    pub name: String,
    /// Where clients reach it; empty before it has published it.
    pub client_urls: Vec<String>,
}

/// Why the JSON cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFault(pub String);

/// The JSON that etcd reads.
pub fn encode(_image: &StoreImage) -> Vec<u8> {
    todo!()
}
/// Reads what etcd or [`encode`] wrote. Empty input is an empty store (etcd 3.7 writes none).
pub fn decode(_json: &[u8]) -> Result<StoreImage, StoreFault> {
    todo!()
}
