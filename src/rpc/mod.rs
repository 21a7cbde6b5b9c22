//! One file for each of etcd's services, and every error text in `status.rs`.

pub mod desk;
pub mod method;
pub mod status;
