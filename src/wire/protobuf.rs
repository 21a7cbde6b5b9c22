//! Encoding by hand, where a message is put together from parts that are already encoded.
