//! (API; bodies follow.) A log as text.
