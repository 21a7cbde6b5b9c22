//! Which cores: the operator's list, and the home core, which is the one that serves the data disk's interrupts (a
//! durable write issued there is about a third faster). Parsing is pure; reading `/sys` and `/proc` stands apart.
