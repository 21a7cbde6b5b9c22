//! The state machine's rules, one test for each; then against a model, and against itself.

mod alarm;
mod golden;
mod kv;
mod lease;
mod member;
mod random;
mod txn;
