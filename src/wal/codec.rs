//! raft-rs messages as protobuf and back.
