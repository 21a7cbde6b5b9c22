//! Random requests: against a map, against another batch split and restarts, and as mere bytes.
