//! Leases as the `lease` bucket holds them: under the id in big-endian, a `leasepb.Lease` whose zero fields are absent.

use bytes::Bytes;
use prost::Message;

use crate::base::LeaseId;
use crate::wire::proto::leasepb;

/// The key of a lease in the bucket.
pub fn key(id: LeaseId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// The bytes stored for a lease; times in seconds.
pub fn encode(id: LeaseId, ttl: i64, remaining_ttl: i64) -> Bytes {
    let lease = leasepb::Lease {
        id: id.0,
        ttl,
        remaining_ttl,
    };
    lease.encode_to_vec().into()
}

/// Reads a stored lease; `None` if it is none.
pub fn decode(record: &[u8]) -> Option<leasepb::Lease> {
    leasepb::Lease::decode(record).ok()
}

/// Fuzz entry: any bytes are read or refused, and what is read survives being written.
pub fn fuzz_lease_record(bytes: &[u8]) {
    if let Some(lease) = decode(bytes) {
        let again = encode(LeaseId(lease.id), lease.ttl, lease.remaining_ttl);
        assert_eq!(decode(&again), Some(lease));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_the_bytes_that_etcd_writes() {
        // From a database of etcd 3.5: `lease grant 60` with id 0x7b, and the same after a checkpoint of 30 seconds.
        assert_eq!(key(LeaseId(0x7b)), [0, 0, 0, 0, 0, 0, 0, 0x7b]);
        assert_eq!(encode(LeaseId(0x7b), 60, 0)[..], [0x08, 0x7b, 0x10, 60]);
        assert_eq!(encode(LeaseId(0x7b), 60, 30)[..], [0x08, 0x7b, 0x10, 60, 0x18, 30]);
    }
}
