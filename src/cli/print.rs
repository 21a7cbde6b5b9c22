//! What the offline commands print, in etcdutl's formats. Pure.

use crate::ops::health::json_string;

/// `--write-out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// Values with commas.
    Simple,
    /// A frame around them.
    Table,
    /// An object.
    Json,
    /// A line for each.
    Fields,
}

/// What `snapshot status` finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// CRC-32C over the names, keys and values of all buckets.
    pub hash: u32,
    /// The newest revision.
    pub revision: i64,
    /// Keys in all buckets, revisions of the store among them.
    pub keys: u64,
    /// Length of the database in bytes.
    pub size: u64,
    /// The storage version, such as `3.6.0`; empty if the file has none, as before 3.6.
    pub version: String,
}

/// A status in one of the formats, with the line's end.
pub fn print_status(status: &SnapshotStatus, format: OutputFormat) -> String {
    let hash = format!("{:x}", status.hash);
    let columns = [
        ("HASH", hash),
        ("REVISION", status.revision.to_string()),
        ("TOTAL KEYS", status.keys.to_string()),
        ("TOTAL SIZE", human_bytes(status.size)),
        ("VERSION", status.version.clone()),
    ];
    match format {
        OutputFormat::Simple => {
            let values: Vec<String> = columns.map(|(_, value)| value).to_vec();
            values.join(", ") + "\n"
        }
        OutputFormat::Table => table(&columns),
        OutputFormat::Json => format!(
            "{{\"hash\":{},\"revision\":{},\"totalKey\":{},\"totalSize\":{},\"version\":{}}}\n",
            status.hash,
            status.revision,
            status.keys,
            status.size,
            json_string(&status.version)
        ),
        OutputFormat::Fields => format!(
            "\"Hash\" : {}\n\"Revision\" : {}\n\"Keys\" : {}\n\"Size\" : {}\n\"Version\" : {}\n",
            status.hash,
            status.revision,
            status.keys,
            status.size,
            json_string(&status.version)
        ),
    }
}

/// One row under its titles.
fn table(columns: &[(&str, String)]) -> String {
    let widths: Vec<usize> = columns
        .iter()
        .map(|(title, value)| title.len().max(value.len()))
        .collect();
    let rule = || {
        let bars: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
        format!("+{}+\n", bars.join("+"))
    };
    // Titles are centred, the odd space in front of none; values of numbers stand at the right.
    let title = |(index, (title, _)): (usize, &(&str, String))| {
        let space = widths[index] - title.len();
        let left = space / 2;
        format!(" {}{title}{} ", " ".repeat(left), " ".repeat(space - left))
    };
    let value = |(index, (_, value)): (usize, &(&str, String))| format!(" {value:>width$} ", width = widths[index]);
    let titles: Vec<String> = columns.iter().enumerate().map(title).collect();
    let values: Vec<String> = columns.iter().enumerate().map(value).collect();
    let mut text = rule();
    text.push_str(&format!("|{}|\n", titles.join("|")));
    text.push_str(&rule());
    text.push_str(&format!("|{}|\n", values.join("|")));
    text.push_str(&rule());
    text
}

/// A size with a unit of thousands and two digits, as etcd's tools write it: `20 kB`, `1.5 MB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let exponent = (bytes.ilog10() / 3) as usize;
    let scaled = bytes as f64 / 1000f64.powi(exponent as i32);
    let rounded = (scaled * 10.0 + 0.5).floor() / 10.0;
    match rounded < 10.0 {
        true => format!("{rounded:.1} {}", UNITS[exponent]),
        false => format!("{rounded:.0} {}", UNITS[exponent]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_digits() {
        for (bytes, expected) in [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (20_480, "20 kB"),
            (1_572_864, "1.6 MB"),
            (2_147_483_648, "2.1 GB"),
        ] {
            assert_eq!(human_bytes(bytes), expected);
        }
    }

    #[test]
    fn a_status_looks_as_etcdutl_s() {
        let status = SnapshotStatus {
            hash: 0x5dc6_9a1a,
            revision: 2,
            keys: 7,
            size: 20_480,
            version: String::new(),
        };
        assert_eq!(print_status(&status, OutputFormat::Simple), "5dc69a1a, 2, 7, 20 kB, \n");
        assert_eq!(
            print_status(&status, OutputFormat::Json),
            "{\"hash\":1573296666,\"revision\":2,\"totalKey\":7,\"totalSize\":20480,\"version\":\"\"}\n"
        );
        let table = print_status(&status, OutputFormat::Table);
        assert!(
            table.contains("| 5dc69a1a |        2 |          7 |      20 kB |"),
            "{table}"
        );
    }
}
