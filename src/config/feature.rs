//! Feature gates: `--feature-gates=Name=true,...`.

use super::duration::go_quote;

/// How finished etcd calls a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Off unless asked for.
    Alpha,
    /// On unless turned off.
    Beta,
}

impl Stage {
    /// As metrics and help show it.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Alpha => "ALPHA",
            Stage::Beta => "BETA",
        }
    }
}

/// A feature that can be turned on and off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // etcd's names; the table below says what each does.
pub enum Feature {
    CompactHashCheck,
    InitialCorruptCheck,
    LeaseCheckpoint,
    LeaseCheckpointPersist,
    SetMemberLocalAddr,
    StopGrpcServiceOnDefrag,
    TxnModeWriteWithSharedBuffer,
}

/// All features: itself, name, stage, the flag of etcd 3.5 that did the same.
pub const FEATURES: [(Feature, &str, Stage, Option<&str>); 7] = [
    (
        Feature::CompactHashCheck,
        "CompactHashCheck",
        Stage::Alpha,
        Some("experimental-compact-hash-check-enabled"),
    ),
    (
        Feature::InitialCorruptCheck,
        "InitialCorruptCheck",
        Stage::Alpha,
        Some("experimental-initial-corrupt-check"),
    ),
    (
        Feature::LeaseCheckpoint,
        "LeaseCheckpoint",
        Stage::Alpha,
        Some("experimental-enable-lease-checkpoint"),
    ),
    (
        Feature::LeaseCheckpointPersist,
        "LeaseCheckpointPersist",
        Stage::Alpha,
        Some("experimental-enable-lease-checkpoint-persist"),
    ),
    (Feature::SetMemberLocalAddr, "SetMemberLocalAddr", Stage::Alpha, None),
    (
        Feature::StopGrpcServiceOnDefrag,
        "StopGRPCServiceOnDefrag",
        Stage::Alpha,
        Some("experimental-stop-grpc-service-on-defrag"),
    ),
    (
        Feature::TxnModeWriteWithSharedBuffer,
        "TxnModeWriteWithSharedBuffer",
        Stage::Beta,
        Some("experimental-txn-mode-write-with-shared-buffer"),
    ),
];

/// Which features are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureGates([bool; FEATURES.len()]);

impl Default for FeatureGates {
    fn default() -> FeatureGates {
        FeatureGates(FEATURES.map(|(_, _, stage, _)| stage == Stage::Beta))
    }
}

impl FeatureGates {
    /// Whether a feature is on.
    pub fn is_on(&self, feature: Feature) -> bool {
        self.0[feature as usize]
    }

    /// Name, stage and state of each feature, for the metric.
    pub fn states(&self) -> Vec<(&'static str, &'static str, bool)> {
        FEATURES
            .iter()
            .map(|(feature, name, stage, _)| (*name, stage.name(), self.is_on(*feature)))
            .collect()
    }

    pub(super) fn set(&mut self, feature: Feature, is_on: bool) {
        self.0[feature as usize] = is_on;
    }

    /// Applies a flag's value. `AllAlpha` and `AllBeta` set the others of their stage.
    pub(super) fn apply(&mut self, text: &str) -> Result<(), String> {
        let mut named = Vec::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .map(|(name, value)| (name.trim(), value.trim()))
                .ok_or_else(|| format!("missing bool value for {pair}"))?;
            let is_on = super::value::parse_bool(value).ok_or_else(|| {
                format!(
                    "invalid value of {name}={value}, err: strconv.ParseBool: parsing {}: invalid syntax",
                    go_quote(value)
                )
            })?;
            named.push((name, is_on));
        }
        for (name, is_on) in &named {
            let stage = match *name {
                "AllAlpha" => Stage::Alpha,
                "AllBeta" => Stage::Beta,
                _ => continue,
            };
            for (feature, ..) in FEATURES.iter().filter(|(_, _, of, _)| *of == stage) {
                self.set(*feature, *is_on);
            }
        }
        for (name, is_on) in &named {
            if matches!(*name, "AllAlpha" | "AllBeta") {
                continue;
            }
            let known = FEATURES.iter().find(|(_, known, ..)| known == name);
            let (feature, ..) = known.ok_or_else(|| format!("unrecognized feature gate: {name}"))?;
            self.set(*feature, *is_on);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_by_name_win_over_their_stage() {
        let mut gates = FeatureGates::default();
        gates.apply("LeaseCheckpoint=false,AllAlpha=true").unwrap();
        assert!(gates.is_on(Feature::CompactHashCheck));
        assert!(!gates.is_on(Feature::LeaseCheckpoint));
        assert!(gates.is_on(Feature::TxnModeWriteWithSharedBuffer));
        assert_eq!(gates.apply("Nope=true").unwrap_err(), "unrecognized feature gate: Nope");
        assert_eq!(
            gates.apply("LeaseCheckpoint").unwrap_err(),
            "missing bool value for LeaseCheckpoint"
        );
    }

    #[test]
    fn the_table_is_in_the_order_of_the_numbers() {
        for (index, (feature, ..)) in FEATURES.iter().enumerate() {
            assert_eq!(*feature as usize, index);
        }
    }
}
