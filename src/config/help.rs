//! The texts of `--help` and of the usage, from the table.

use super::flags::{FLAGS, Flag, Kind, Section, Treatment};

/// What a wrong command line is answered with.
pub fn usage_text() -> String {
    "Usage:

  ringd [flags]
    Run the server.

  ringd --version
    Print the version.

  ringd -h | --help
    Print all flags.

  ringd --config-file FILE
    Run the server with the configuration of a YAML file; flags and environment variables are ignored.

  ringd snapshot status FILE
    Print what a saved snapshot holds.

  ringd snapshot restore FILE --data-dir DIR
    Make a data directory for a member of a new cluster from a saved snapshot.

  ringd check DIR
    Check a data directory that no server runs on.

  ringd wal dump DIR
    Print the records of a log.

  ringd bench put|range|txn-put|txn-mixed|watch|watch-latency|lease-grant|lease-revoke|lease-keepalive|kubernetes [flags]
    Put load on an etcd endpoint and measure it.

  ringd doctor [--dir DIR]
    Look at this machine: what costs latency, and what mends it.
"
    .to_string()
}

/// Every flag.
pub fn help_text() -> String {
    let mut text = usage_text();
    for (section, title) in Section::ALL {
        let flags: Vec<&Flag> = FLAGS
            .iter()
            .filter(|flag| flag.section == section && flag.kind != Kind::Nothing)
            .collect();
        if flags.is_empty() {
            continue;
        }
        text.push_str(&format!("\n{title}:\n"));
        for flag in flags {
            text.push_str(&flag_text(flag));
        }
    }
    text
}

fn flag_text(flag: &Flag) -> String {
    let default = if flag.default.is_empty() {
        "''".to_string()
    } else {
        format!("'{}'", flag.default)
    };
    let mut lines = Vec::new();
    if !flag.help.is_empty() {
        lines.push(flag.help.to_string());
    }
    match flag.treatment {
        Treatment::Honoured => {}
        Treatment::Accepted(reason) => lines.push(format!("Has no effect: {reason}.")),
        Treatment::Refused(reason) => lines.push(format!("Refused: {reason}.")),
        Treatment::Alias(name) => lines.push(format!("Old name of --{name}.")),
        Treatment::Gate(name) => lines.push(format!("Old way to say --feature-gates={name}=true.")),
    }
    if flag.kind == Kind::Features {
        for (_, name, stage, _) in super::FEATURES {
            let is_on = stage == super::Stage::Beta;
            lines.push(format!("{name}=true|false ({} - default={is_on})", stage.name()));
        }
    }
    let mut text = format!("  --{} {default}\n", flag.name);
    for line in lines {
        text.push_str(&format!("    {line}\n"));
    }
    text
}
