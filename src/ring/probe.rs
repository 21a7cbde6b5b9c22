//! What must hold before a server can run, checked at start, each failure with one sentence that says what to do.
