//! Reads a scenario: a step on each line, `#` begins a comment. Strict: what is not understood is an error that names file
//! and line, and so is a scenario that does not say what it guards and where the rule comes from.
//!
//! ```text
//! # guards: what would be broken
//! # rule: where it is said that this must hold
//! members 3                                      head: members, flag NAME VALUE, segment BYTES, catches BUG, lengthy
//! start all
//! roles L F G                                    waits for a leader, and names it and the others
//! put c1@L k v                                   client c1 asks L, and must have a good answer
//! get c1@F k => value v or error                 what may come back
//! begin put c1@L k w                             goes on at once; `answer c1 => …` waits for it
//! watch w@F k prefix from 3 progress             `told w put k v 3`, `told w compacted 5`, `silent w 1s`
//! crash L at sync 1 of db begin torn             the power fails at that effect
//! wait leader F at G within 10s
//! ```

use std::{ops::RangeInclusive, time::Duration};

use bytes::Bytes;
use ringd::{
    testing::{Moment, Operation, PathPart, Trap, Unsynced},
    wire::proto::etcdserverpb::{
        CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
        PutRequest, RangeRequest, RequestOp, TxnRequest, compare, request_op,
    },
};

use super::steps::{Ask, Condition, DiskState, Expected, Fill, Line, Outcome, Scenario, Step, Told, Watch};
use crate::history::Request;

/// How long a `wait` waits unless it says how long.
const WAIT: Duration = Duration::from_secs(30);
const SEGMENT_BYTES: u64 = 512 * 1024;

/// Reads a scenario.
///
/// # Errors
/// File, line and what is wrong there.
pub fn parse(file: &str, text: &str) -> Result<Scenario, String> {
    let name = file
        .rsplit('/')
        .next()
        .unwrap_or(file)
        .trim_end_matches(".txt")
        .to_owned();
    let mut scenario = Scenario {
        name,
        members: 0,
        flags: Vec::new(),
        segment_bytes: SEGMENT_BYTES,
        is_slow: false,
        catches: Vec::new(),
        steps: Vec::new(),
    };
    for wanted in ["# guards: ", "# rule: "] {
        if !text.lines().any(|line| line.starts_with(wanted)) {
            return Err(format!("{file}: no line begins with `{wanted}`"));
        }
    }
    for (number, line) in text.lines().enumerate() {
        parse_line(&mut scenario, number + 1, line).map_err(|what| format!("{file}:{}: {what}", number + 1))?;
    }
    match (scenario.members, scenario.steps.len()) {
        (1 | 3 | 5, 1..) => Ok(scenario),
        (1 | 3 | 5, 0) => Err(format!("{file}: it has no steps")),
        (count, _) => Err(format!("{file}: {count} members; 1, 3 or 5 are possible")),
    }
}

fn parse_line(scenario: &mut Scenario, number: usize, line: &str) -> Result<(), String> {
    let mut words = Words::cut(line)?;
    let Some(verb) = words.next_if_any() else { return Ok(()) };
    if matches!(verb.as_str(), "members" | "flag" | "segment" | "catches" | "lengthy") {
        if !scenario.steps.is_empty() {
            return Err(format!("`{verb}` belongs before the first step"));
        }
        match verb.as_str() {
            "members" => scenario.members = words.number()?,
            "flag" => scenario.flags.push(format!("--{}={}", words.word()?, words.word()?)),
            "segment" => scenario.segment_bytes = words.number()?,
            "lengthy" => scenario.is_slow = true,
            _ => scenario.catches.push(words.word()?),
        }
        return words.end();
    }
    let step = parse_step(&verb, &mut words)?;
    words.end()?;
    scenario.steps.push(Line {
        number,
        text: line.trim().to_owned(),
        step,
    });
    Ok(())
}

fn parse_step(verb: &str, words: &mut Words) -> Result<Step, String> {
    Ok(match verb {
        "start" => Step::Start(words.rest_some()?),
        "stop" => Step::Stop(words.word()?),
        "kill" => Step::Kill(words.rest_some()?),
        "power-cut" => {
            let unsynced = words.unsynced()?;
            Step::PowerCut(words.rest_some()?, unsynced)
        }
        "crash" => crash(words)?,
        "pause" => Step::Pause(words.word()?),
        "resume" => Step::Resume(words.word()?),
        "cut" => {
            let (from, way, to) = (words.word()?, words.word()?, words.word()?);
            match way.as_str() {
                "->" => Step::Cut(from, to),
                "<->" => Step::Partition(from, to),
                _ => return Err(format!("`{way}` is neither `->` nor `<->`")),
            }
        }
        "isolate" => Step::Isolate(words.word()?),
        "heal" => Step::Heal,
        "disk" => Step::Disk(words.word()?, disk(words)?),
        "rot" => Step::Rot(words.word()?, words.number()?),
        "clock" => clock(words)?,
        "roles" => Step::Roles(words.rest_some()?),
        "sleep" => Step::Sleep(words.duration()?),
        "begin" => {
            let verb = words.word()?;
            Step::Ask(ask(&verb, words, true)?)
        }
        "answer" => {
            let client = words.word()?;
            Step::Answer(client, expected(words)?)
        }
        "silent" => Step::Silent(words.word()?, words.duration()?),
        "fill" => fill(words)?,
        "watch" => watch(words)?,
        "progress" => Step::Progress(words.word()?),
        "close" => Step::Close(words.word()?),
        "slow" => Step::Slow(words.word()?, words.duration()?),
        "told" => Step::Told(words.word()?, told(words)?),
        "wait" => {
            let condition = condition(words)?;
            let limit = if words.take("within") { words.duration()? } else { WAIT };
            Step::Wait(condition, limit)
        }
        "expect" => Step::Expect(condition(words)?),
        verb => Step::Ask(ask(verb, words, false)?),
    })
}

fn crash(words: &mut Words) -> Result<Step, String> {
    let member = words.word()?;
    words.expect("at")?;
    let operation = match words.word()?.as_str() {
        "write" => Operation::Write,
        "sync" => Operation::Sync,
        "rename" => Operation::Rename,
        "sync-names" => Operation::SyncDirectory,
        other => return Err(format!("`{other}` is none of write, sync, rename, sync-names")),
    };
    let number = words.number()?;
    words.expect("of")?;
    let path = match words.word()?.as_str() {
        "db" => PathPart::End("/snap/db".to_owned()),
        "wal" => PathPart::Anywhere("/member/wal".to_owned()),
        "snap" => PathPart::End(".snap".to_owned()),
        // The name of a database that comes from a leader changes on its way.
        "received" => PathPart::Anywhere(".snap.db".to_owned()),
        "snap-names" => PathPart::End("/member/snap".to_owned()),
        other => return Err(format!("`{other}` is none of db, wal, snap, received, snap-names")),
    };
    let moment = match words.word()?.as_str() {
        "begin" => Moment::Begin,
        "end" => Moment::End,
        other => return Err(format!("`{other}` is neither `begin` nor `end`")),
    };
    let unsynced = words.unsynced()?;
    if number == 0 {
        return Err("operations are counted from 1".to_owned());
    }
    let trap = Trap {
        operation,
        path,
        number,
        moment,
        unsynced,
    };
    Ok(Step::CrashAt(member, trap))
}

fn disk(words: &mut Words) -> Result<DiskState, String> {
    Ok(match words.word()?.as_str() {
        "sound" => DiskState::Sound,
        "fails" => DiskState::Fails,
        "sync-fails" => DiskState::SyncFails,
        "stalls" => DiskState::Stalls(words.duration()?),
        "full" => DiskState::Full,
        other => return Err(format!("`{other}` is none of sound, fails, sync-fails, stalls, full")),
    })
}

fn clock(words: &mut Words) -> Result<Step, String> {
    let member = words.word()?;
    match words.word()?.as_str() {
        "jump" => {
            let by = words.word()?;
            let (sign, length) = match by.split_at_checked(1) {
                Some(("+", length)) => (1, length),
                Some(("-", length)) => (-1, length),
                _ => return Err(format!("`{by}` has no sign")),
            };
            let nanos = i64::try_from(duration(length)?.as_nanos()).map_err(|error| error.to_string())?;
            Ok(Step::ClockJump(member, sign * nanos))
        }
        "drift" => Ok(Step::ClockDrift(member, words.number()?)),
        other => Err(format!("`{other}` is neither `jump` nor `drift`")),
    }
}

fn fill(words: &mut Words) -> Result<Step, String> {
    let (client, member) = words.at()?;
    Ok(Step::Fill(Fill {
        client,
        member,
        prefix: words.word()?,
        count: words.number()?,
        value_bytes: if words.is_empty() { 16 } else { words.number()? },
        may_fail: words.take("until-error"),
    }))
}

fn watch(words: &mut Words) -> Result<Step, String> {
    let (watcher, member) = words.at()?;
    let mut watch = Watch {
        watcher,
        member,
        key: words.word()?,
        is_prefix: false,
        from: 0,
        has_progress: false,
        has_previous: false,
    };
    while let Some(option) = words.next_if_any() {
        match option.as_str() {
            "prefix" => watch.is_prefix = true,
            "from" => watch.from = words.number()?,
            "progress" => watch.has_progress = true,
            "previous" => watch.has_previous = true,
            other => return Err(format!("`{other}` is no option of a watcher")),
        }
    }
    Ok(Step::Watch(watch))
}

fn told(words: &mut Words) -> Result<Told, String> {
    Ok(match words.word()?.as_str() {
        "created" => Told::Created,
        "put" => Told::Put {
            key: words.word()?,
            value: Some(words.word()?),
            revision: words.number()?,
        },
        "delete" => Told::Delete {
            key: words.word()?,
            revision: words.number()?,
        },
        "revisions" => Told::Revisions(words.range()?),
        "progress" => Told::Progress(words.number()?),
        "compacted" => Told::Compacted(words.number()?),
        "revisions-from" => {
            let from = words.number()?;
            words.expect("until")?;
            words.expect("compacted")?;
            let compacted = words.number()?;
            Told::RevisionsUntilCompacted { from, compacted }
        }
        "end" => Told::End,
        other => return Err(format!("`{other}` is nothing that a watcher is told")),
    })
}

fn condition(words: &mut Words) -> Result<Condition, String> {
    Ok(match words.word()?.as_str() {
        "leader" => {
            let leader = words.word()?;
            let at = if words.take("at") {
                words.word()?
            } else {
                leader.clone()
            };
            Condition::Leader { leader, at }
        }
        "leader-other-than" => {
            let than = words.word()?;
            words.expect("at")?;
            Condition::OtherLeader {
                than,
                at: words.word()?,
            }
        }
        "no-leader" => Condition::NoLeader(words.word()?),
        "revision" => Condition::Revision(words.word()?, words.number()?),
        "down" => Condition::Down(words.word()?, words.word()?),
        "crashed" => Condition::Crashed(words.word()?),
        "equal-hash" => Condition::EqualHash,
        "sound" => Condition::Sound(words.word()?),
        "file" => Condition::HasFile(words.word()?, words.word()?),
        other => return Err(format!("`{other}` is no condition")),
    })
}

fn ask(verb: &str, words: &mut Words, is_begun: bool) -> Result<Ask, String> {
    // A step that nobody knows is said to be that, and not a bad address.
    let known = [
        "put", "get", "del", "txn", "compact", "grant", "renew", "revoke", "left", "leases", "defrag", "snapshot",
    ];
    if !known.contains(&verb) {
        return Err(format!("`{verb}` is no step"));
    }
    let (client, member) = words.at()?;
    let request = request(verb, words)?;
    let expected = match (is_begun, words.is_empty()) {
        (false, false) => expected(words)?,
        _ => Expected(vec![Outcome::Ok]),
    };
    Ok(Ask {
        client,
        member,
        request,
        is_begun,
        expected,
    })
}

fn request(verb: &str, words: &mut Words) -> Result<Request, String> {
    Ok(match verb {
        "put" => Request::Put(put(words)?),
        "get" => {
            let mut range = RangeRequest {
                key: bytes(&words.word()?),
                ..RangeRequest::default()
            };
            loop {
                if words.take("serializable") {
                    range.serializable = true;
                } else if words.take("prefix") {
                    range.range_end = prefix_end(&range.key);
                } else if words.take("at") {
                    range.revision = words.number()?;
                } else {
                    break Request::Range(range);
                }
            }
        }
        "del" => Request::Delete(DeleteRangeRequest {
            key: bytes(&words.word()?),
            ..DeleteRangeRequest::default()
        }),
        "txn" => Request::Txn(txn(words)?),
        "compact" => Request::Compact(CompactionRequest {
            revision: words.number()?,
            physical: words.take("physical"),
        }),
        "grant" => Request::Grant(LeaseGrantRequest {
            id: words.number()?,
            ttl: {
                words.expect("ttl")?;
                words.number()?
            },
        }),
        "renew" => Request::KeepAlive(words.number()?),
        "revoke" => Request::Revoke(LeaseRevokeRequest { id: words.number()? }),
        "left" => Request::TimeToLive(LeaseTimeToLiveRequest {
            id: words.number()?,
            keys: false,
        }),
        "leases" => Request::Leases,
        "defrag" => Request::Defragment,
        _ => Request::Snapshot,
    })
}

fn put(words: &mut Words) -> Result<PutRequest, String> {
    Ok(PutRequest {
        key: bytes(&words.word()?),
        value: bytes(&words.word()?),
        lease: if words.take("lease") { words.number()? } else { 0 },
        ..PutRequest::default()
    })
}

/// `if KEY version N then put KEY VALUE [else put KEY VALUE]`
fn txn(words: &mut Words) -> Result<TxnRequest, String> {
    words.expect("if")?;
    let key = bytes(&words.word()?);
    words.expect("version")?;
    let version = words.number()?;
    words.expect("then")?;
    let branch = |words: &mut Words| -> Result<Vec<RequestOp>, String> {
        words.expect("put")?;
        Ok(vec![RequestOp {
            request: Some(request_op::Request::RequestPut(put(words)?)),
        }])
    };
    let success = branch(words)?;
    let failure = if words.take("else") { branch(words)? } else { Vec::new() };
    Ok(TxnRequest {
        compare: vec![Compare {
            result: compare::CompareResult::Equal as i32,
            target: compare::CompareTarget::Version as i32,
            key,
            target_union: Some(compare::TargetUnion::Version(version)),
            ..Compare::default()
        }],
        success,
        failure,
    })
}

fn expected(words: &mut Words) -> Result<Expected, String> {
    words.expect("=>")?;
    let mut outcomes = vec![outcome(words)?];
    while words.take("or") {
        outcomes.push(outcome(words)?);
    }
    Ok(Expected(outcomes))
}

fn outcome(words: &mut Words) -> Result<Outcome, String> {
    Ok(match words.word()?.as_str() {
        "ok" => Outcome::Ok,
        "value" => Outcome::Value(words.word()?),
        "none" => Outcome::NoValue,
        "count" => Outcome::Count(words.number()?),
        "deleted" => Outcome::Deleted(words.number()?),
        "succeeded" => Outcome::Succeeded(true),
        "failed" => Outcome::Succeeded(false),
        "ttl" => Outcome::Ttl(words.range()?),
        "leases" => {
            let mut leases = Vec::new();
            while words.peek().is_some_and(|word| word != "or") {
                leases.push(words.number()?);
            }
            Outcome::Leases(leases)
        }
        "revision" => Outcome::Revision(words.number()?),
        "acknowledged" => Outcome::Acknowledged,
        "error" => match words.peek() {
            None | Some("or") => Outcome::Error,
            Some(text) if text.contains(' ') => Outcome::Status(None, words.word()?),
            Some(_) => Outcome::Status(Some(words.word()?), words.word()?),
        },
        other => return Err(format!("`{other}` is no outcome")),
    })
}

fn bytes(word: &str) -> Bytes {
    Bytes::copy_from_slice(word.as_bytes())
}

/// The end of the span of all keys that begin so.
pub fn prefix_end(key: &[u8]) -> Bytes {
    let mut end = key.to_vec();
    *end.last_mut().expect("a key") += 1;
    end.into()
}

fn duration(word: &str) -> Result<Duration, String> {
    let digits = word.trim_end_matches(|character: char| !character.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| format!("`{word}` is no time"))?;
    Ok(match &word[digits.len()..] {
        "us" => Duration::from_micros(number),
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "h" => Duration::from_secs(number * 3600),
        unit => return Err(format!("`{unit}` is none of us, ms, s, h")),
    })
}

/// The words of a line that are still to be read.
struct Words(std::vec::IntoIter<String>);

impl Words {
    /// Cuts a line at its spaces, but for what is in quotes, and at its comment.
    fn cut(line: &str) -> Result<Words, String> {
        let mut words = Vec::new();
        let mut rest = line.trim();
        while !rest.is_empty() && !rest.starts_with('#') {
            let (word, left) = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').ok_or("a quote does not end")?,
                None => rest.split_once(' ').unwrap_or((rest, "")),
            };
            words.push(word.to_owned());
            rest = left.trim_start();
        }
        Ok(Words(words.into_iter()))
    }

    fn peek(&self) -> Option<&str> {
        self.0.as_slice().first().map(String::as_str)
    }

    fn is_empty(&self) -> bool {
        self.peek().is_none()
    }

    fn next_if_any(&mut self) -> Option<String> {
        self.0.next()
    }

    fn word(&mut self) -> Result<String, String> {
        self.0.next().ok_or_else(|| "a word is missing at its end".to_owned())
    }

    /// Whether the next word is this one, which is taken then.
    fn take(&mut self, word: &str) -> bool {
        let is_next = self.peek() == Some(word);
        if is_next {
            self.0.next();
        }
        is_next
    }

    fn expect(&mut self, wanted: &str) -> Result<(), String> {
        match self.word()? {
            word if word == wanted => Ok(()),
            word => Err(format!("`{word}` where `{wanted}` is expected")),
        }
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, String> {
        let word = self.word()?;
        word.parse().map_err(|_| format!("`{word}` is no number that fits"))
    }

    /// `FROM..TO`, both included, or one number.
    fn range(&mut self) -> Result<RangeInclusive<i64>, String> {
        let word = self.word()?;
        let ends = word.split_once("..").or(Some((&word, &word)));
        let parsed = ends.and_then(|(from, to)| Some(from.parse().ok()?..=to.parse().ok()?));
        parsed.ok_or_else(|| format!("`{word}` is no range"))
    }

    fn duration(&mut self) -> Result<Duration, String> {
        duration(&self.word()?)
    }

    fn unsynced(&mut self) -> Result<Unsynced, String> {
        Ok(match self.word()?.as_str() {
            "lost" => Unsynced::Lost,
            "kept" => Unsynced::Kept,
            "torn" => Unsynced::Torn,
            other => return Err(format!("`{other}` is none of lost, kept, torn")),
        })
    }

    /// `WHO@MEMBER`
    fn at(&mut self) -> Result<(String, String), String> {
        let word = self.word()?;
        let (who, member) = word
            .split_once('@')
            .ok_or_else(|| format!("`{word}` is not WHO@MEMBER"))?;
        Ok((who.to_owned(), member.to_owned()))
    }

    /// All that is left, which is something.
    fn rest_some(&mut self) -> Result<Vec<String>, String> {
        let first = self.word()?;
        Ok(std::iter::once(first).chain(self.0.by_ref()).collect())
    }

    fn end(&mut self) -> Result<(), String> {
        match self.0.next() {
            None => Ok(()),
            Some(word) => Err(format!("`{word}` is one word too many")),
        }
    }
}
