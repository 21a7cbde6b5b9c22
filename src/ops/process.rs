//! What Linux says of this process, from the texts of `/proc`. Pure: whoever may read files hands the texts in.

/// Facts of the process; `None` where the kernel did not say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessFacts {
    /// CPU time of user and kernel, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Soft limit of open file descriptors.
    pub fd_limit: Option<u64>,
    /// Open file descriptors.
    pub fd_used: Option<u64>,
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// Resident memory that no file backs, in bytes.
    pub resident_anonymous_bytes: Option<u64>,
    /// Virtual memory in bytes.
    pub virtual_bytes: Option<u64>,
    /// Limit of virtual memory in bytes; `None` when there is none.
    pub virtual_bytes_max: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Begin of the process in seconds of Unix time.
    pub start_seconds: Option<f64>,
    /// Bytes that all interfaces of its network namespace took in.
    pub network_received_bytes: Option<u64>,
    /// Bytes that they sent.
    pub network_sent_bytes: Option<u64>,
}

/// The texts that [`ProcessFacts::parse`] reads; empty where a file could not be read.
#[derive(Clone, Debug, Default)]
pub struct ProcTexts {
    /// `/proc/self/stat`.
    pub stat: String,
    /// `/proc/self/status`.
    pub status: String,
    /// `/proc/self/limits`.
    pub limits: String,
    /// `/proc/self/net/dev`.
    pub net_dev: String,
    /// `/proc/stat`.
    pub machine_stat: String,
    /// How many entries `/proc/self/fd` has.
    pub fd_count: Option<u64>,
}

impl ProcTexts {
    /// Reads the texts with `read`, which gives a file's text or nothing, and `count`, which counts a directory's entries.
    pub fn read(read: impl Fn(&str) -> Option<String>, count: impl Fn(&str) -> Option<u64>) -> ProcTexts {
        let text = |path: &str| read(path).unwrap_or_default();
        ProcTexts {
            stat: text("/proc/self/stat"),
            status: text("/proc/self/status"),
            limits: text("/proc/self/limits"),
            net_dev: text("/proc/self/net/dev"),
            machine_stat: text("/proc/stat"),
            fd_count: count("/proc/self/fd"),
        }
    }
}

/// Ticks per second of `/proc/self/stat`'s times: Linux has shown 100 to user space on every architecture for decades.
const TICKS_PER_SECOND: f64 = 100.0;

impl ProcessFacts {
    /// Picks the facts out of the texts.
    pub fn parse(texts: &ProcTexts) -> ProcessFacts {
        // The command's name is in parentheses and may hold anything, so fields are counted from the last one.
        let fields: Vec<&str> = texts
            .stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_whitespace().collect())
            .unwrap_or_default();
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
        let boot = texts
            .machine_stat
            .lines()
            .find_map(|line| line.strip_prefix("btime "))
            .and_then(|seconds| seconds.trim().parse::<f64>().ok());
        let (received, sent) = network_bytes(&texts.net_dev).unzip();
        ProcessFacts {
            cpu_seconds: field(14)
                .zip(field(15))
                .map(|(user, kernel)| user.saturating_add(kernel) as f64 / TICKS_PER_SECOND),
            fd_limit: limit(&texts.limits, "Max open files"),
            fd_used: texts.fd_count,
            resident_bytes: status_bytes(&texts.status, "VmRSS:"),
            resident_anonymous_bytes: status_bytes(&texts.status, "RssAnon:"),
            threads: field(20),
            virtual_bytes: field(23),
            virtual_bytes_max: limit(&texts.limits, "Max address space"),
            start_seconds: boot
                .zip(field(22))
                .map(|(boot, ticks)| boot + ticks as f64 / TICKS_PER_SECOND),
            network_received_bytes: received,
            network_sent_bytes: sent,
        }
    }
}

/// The soft limit of a row of `/proc/self/limits`.
fn limit(limits: &str, name: &str) -> Option<u64> {
    let row = limits.lines().find_map(|line| line.strip_prefix(name))?;
    row.split_whitespace().next()?.parse().ok()
}

fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let row = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = row.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes.saturating_mul(1024))
}

/// Received and sent bytes of all interfaces.
fn network_bytes(net_dev: &str) -> Option<(u64, u64)> {
    let mut total = None;
    for line in net_dev.lines() {
        let Some((_, numbers)) = line.split_once(':') else {
            continue;
        };
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|text| text.parse().ok()).collect();
        if let (Some(received), Some(sent)) = (numbers.first(), numbers.get(8)) {
            let (received_total, sent_total) = total.unwrap_or((0_u64, 0_u64));
            total = Some((
                received_total.saturating_add(*received),
                sent_total.saturating_add(*sent),
            ));
        }
    }
    total
}

/// Runs outside bytes through what reads the kernel's texts.
pub fn fuzz_texts(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    ProcessFacts::parse(&ProcTexts {
        stat: text.clone(),
        machine_stat: text.clone(),
        limits: text.clone(),
        status: text.clone(),
        net_dev: text,
        ..ProcTexts::default()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_found_behind_a_strange_command_name() {
        let texts = ProcTexts {
            stat: "7 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 17 18 200 4096000 20 0".into(),
            status: "Name:\tringd\nVmRSS:\t    12 kB\nRssAnon:\t 8 kB\n".into(),
            limits:
                "Limit  Soft Hard Units\nMax open files            20000                20000                files\n\
                     Max address space         unlimited            unlimited            bytes\n"
                    .into(),
            net_dev: "Inter-| Receive\n face |bytes\n lo: 10 0 0 0 0 0 0 0 20 0\neth0: 1 0 0 0 0 0 0 0 2 0\n".into(),
            machine_stat: "cpu 1\nbtime 1000\n".into(),
            fd_count: Some(9),
        };
        let facts = ProcessFacts::parse(&texts);
        assert_eq!(facts.cpu_seconds, Some(2.0));
        assert_eq!(facts.start_seconds, Some(1002.0));
        assert_eq!(facts.virtual_bytes, Some(4_096_000));
        assert_eq!(facts.resident_bytes, Some(12 * 1024));
        assert_eq!(facts.resident_anonymous_bytes, Some(8 * 1024));
        assert_eq!((facts.fd_limit, facts.fd_used), (Some(20_000), Some(9)));
        assert_eq!(facts.virtual_bytes_max, None);
        assert_eq!(
            (facts.network_received_bytes, facts.network_sent_bytes),
            (Some(11), Some(22))
        );
    }

    #[test]
    fn empty_texts_give_no_facts() {
        assert_eq!(ProcessFacts::parse(&ProcTexts::default()), ProcessFacts::default());
    }
}
