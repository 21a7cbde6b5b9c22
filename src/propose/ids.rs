//! Ids for requests and leases: unique in the cluster without asking anybody, and over restarts.

use crate::base::{LeaseId, MemberId, RequestId, WallTime};

/// Hands out ids in etcd's form:
///
/// ```text
/// | member: low 2 bytes | milliseconds at the start: 5 bytes | counter: 1 byte |
/// ```
///
/// The counter overflows into the milliseconds, which is harmless as long as fewer than 256 ids are handed out for each
/// millisecond that the member runs, on average.
#[derive(Debug)]
pub struct RequestIds {
    prefix: u64,
    suffix: u64,
}

const SUFFIX_BITS: u32 = 48;

impl RequestIds {
    /// Ids of `member_id`, beginning with the time of its start.
    pub fn new(member_id: MemberId, started: WallTime) -> RequestIds {
        let suffix = (started.unix_millis() << 8) & ((1 << SUFFIX_BITS) - 1);
        RequestIds {
            prefix: member_id.0 << SUFFIX_BITS,
            suffix,
        }
    }

    /// The next id.
    pub fn next_request(&mut self) -> RequestId {
        self.suffix = (self.suffix + 1) & ((1 << SUFFIX_BITS) - 1);
        RequestId(self.prefix | self.suffix)
    }

    /// An id for a lease whose client left the choice to us: positive.
    pub fn next_lease(&mut self) -> LeaseId {
        loop {
            let id = self.next_request().0 & (i64::MAX as u64);
            if id != 0 {
                return LeaseId(id as i64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_hold_member_time_and_counter() {
        let mut ids = RequestIds::new(MemberId(0x12_3456), WallTime(0x10_2030_4050 * 1_000_000));
        assert_eq!(ids.next_request().0, 0x3456_1020_3040_5001);
        assert_eq!(ids.next_request().0, 0x3456_1020_3040_5002);
    }

    #[test]
    fn lease_ids_are_positive_for_every_member() {
        let mut ids = RequestIds::new(MemberId(u64::MAX), WallTime(u64::MAX));
        for _ in 0..1000 {
            assert!(ids.next_lease().0 > 0);
        }
    }

    #[test]
    fn the_counter_never_reaches_the_member() {
        let mut ids = RequestIds {
            prefix: 7 << SUFFIX_BITS,
            suffix: (1 << SUFFIX_BITS) - 1,
        };
        assert_eq!(ids.next_request().0, 7 << SUFFIX_BITS);
    }
}
