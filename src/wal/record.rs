//! One record as bytes and back.
