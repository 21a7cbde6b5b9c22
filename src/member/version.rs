//! Versions of the cluster, as `major.minor.patch` with what semantic versioning allows behind it.

use std::fmt;

/// The version that every member of a cluster supports. Compared by its three numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterVersion {
    /// Major.
    pub major: u64,
    /// Minor.
    pub minor: u64,
    /// Patch; 0 in versions that a cluster agrees on.
    pub patch: u64,
    suffix: String,
}

impl ClusterVersion {
    /// The version of all patches of a minor version.
    pub const fn new(major: u64, minor: u64) -> ClusterVersion {
        ClusterVersion {
            major,
            minor,
            patch: 0,
            suffix: String::new(),
        }
    }

    /// Reads `3.5.0`, `3.6.0-alpha.0` and the like; `None` for anything else.
    pub fn parse(text: &str) -> Option<ClusterVersion> {
        let numbers_end = text.find(['-', '+']).unwrap_or(text.len());
        let (numbers, suffix) = text.split_at(numbers_end);
        let mut numbers = numbers.split('.');
        let mut number = || -> Option<u64> {
            let digits = numbers.next()?;
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| digits.parse().ok())?
        };
        let version = ClusterVersion {
            major: number()?,
            minor: number()?,
            patch: number()?,
            suffix: suffix.to_owned(),
        };
        numbers.next().is_none().then_some(version)
    }

    /// Whether it is at least `major.minor`.
    pub fn is_at_least(&self, major: u64, minor: u64) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

impl fmt::Display for ClusterVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}{}", self.major, self.minor, self.patch, self.suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_survives_being_read_and_written() {
        for text in ["3.5.0", "3.6.0-alpha.0", "3.6.1+build", "10.0.7-rc.1+x"] {
            assert_eq!(ClusterVersion::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "3",
            "3.5",
            "3.5.0.1",
            "v3.5.0",
            "3.a.0",
            "3..0",
            "-1.0.0",
            "3.5.99999999999999999999",
        ] {
            assert_eq!(ClusterVersion::parse(text), None, "{text}");
        }
        let version = ClusterVersion::new(3, 5);
        assert!(version.is_at_least(3, 5) && version.is_at_least(2, 9) && !version.is_at_least(3, 6));
    }
}
