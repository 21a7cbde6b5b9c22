//! etcd's services: one file for each, and every error text in `status.rs`. `session` carries a connection's calls
//! to the replica's [`desk`] and the answers back.

pub mod desk;
pub mod status;
