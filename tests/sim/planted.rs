//! Bugs to order: the simulator must find each within a stated number of seeds. `RINGD_SIM_PLANT=NAME` plants one for seeds
//! that are replayed; without seeds, `RINGD_SIM_PLANT=all` looks for all from the first seed on and says which seed finds
//! each, and `RINGD_SIM_PLANT=NAME,NAME` looks for these.

/// Which scene looks for a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// A lone member.
    Single,
    /// One to five members.
    Cluster,
}

#[cfg(debug_assertions)]
pub use here::{find, plant_one, with};

/// Whether the simulator finds what was planted for it: builds without assertions have no bugs to plant.
#[cfg(not(debug_assertions))]
pub fn find(_: Scene, _: impl Fn(u64) -> Option<String> + Sync) -> bool {
    true
}

/// Builds without assertions have no bugs to plant.
#[cfg(not(debug_assertions))]
pub fn plant_one() {}

/// Builds without assertions have no bugs to plant.
#[cfg(not(debug_assertions))]
pub fn with<T>(_: &str, _: impl FnOnce() -> T) -> Option<T> {
    None
}

#[cfg(debug_assertions)]
mod here {
    use std::{
        env,
        num::NonZero,
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use super::Scene;
    use ringd::base::planted::{
        Planted::{self, *},
        plant,
    };

    /// A bug, a seed that finds it, and the number of seeds, from the first on, of which one must find it. The former is
    /// where a smoke test looks first.
    type Bug = (Planted, u64, u64);

    /// What a lone member can have.
    const OF_ONE: &[Bug] = &[
        (AnswerBeforeDurable, 1, 20),
        (AppliedApart, 1, 5),
        (AttachmentKept, 1, 5),
        (AttachmentsForgotten, 9, 60),
        (ChecksumRestarted, 1, 5),
        (CompactionCutShort, 41, 150),
        (CompactionGreedy, 2, 10),
        (DefragmentForgets, 12, 30),
        (EventDropped, 1, 5),
        (EventTwice, 1, 5),
        (LeaseEarly, 1, 5),
        (LeaseImmortal, 1, 5),
        (LogSyncSkipped, 1, 5),
        (MetaBeforeData, 13, 120),
        (PagesReusedEarly, 60, 200),
        (PreviousForgotten, 1, 5),
        (ProgressAhead, 17, 20),
        (SegmentNameUnsynced, 3, 10),
        (SnapshotUnpinned, 60, 200),
        (SyncErrorRetried, 161, 400),
        (WriteErrorIgnored, 9, 150),
    ];

    /// What only several members can have.
    const OF_SEVERAL: &[Bug] = &[
        (AppendAnsweredEarly, 1, 40),
        (ApplyByClock, 6, 40),
        (LeaseByFollower, 15, 120),
        (ReadBeforeApplied, 11, 30),
        (ReadUnconfirmed, 49, 200),
        (SnapshotIndexAhead, 2, 10),
        (SnapshotUntold, 5, 20),
        (VoteAnsweredEarly, 5, 200),
    ];

    fn all() -> impl Iterator<Item = (Scene, &'static Bug)> {
        let of_one = OF_ONE.iter().map(|bug| (Scene::Single, bug));
        of_one.chain(OF_SEVERAL.iter().map(|bug| (Scene::Cluster, bug)))
    }

    /// Those that scenarios by hand are there for, or first boots cut short.
    const OF_SCENARIOS: &[Planted] = &[
        CompactionToldFirst,
        FoundingCutShort,
        ProgressOfFuture,
        ProgressWithheld,
        ReadAnswerMistaken,
        ReadContextReused,
        ReadWhileHandingOver,
    ];

    fn named(name: &str) -> Option<Planted> {
        let drawn = all().map(|(_, (bug, ..))| *bug);
        let mut bugs = drawn.chain(OF_SCENARIOS.iter().copied());
        bugs.find(|bug| format!("{bug:?}") == name)
    }

    /// Plants what `RINGD_SIM_PLANT` names.
    pub fn plant_one() {
        let Ok(name) = env::var("RINGD_SIM_PLANT") else { return };
        let bug = named(&name);
        assert!(bug.is_some(), "no bug is called {name}");
        plant(bug);
    }

    /// What comes of something with the bug of that name planted; panics of servers are not shown.
    pub fn with<T>(name: &str, act: impl FnOnce() -> T) -> Option<T> {
        let bug = named(name);
        assert!(bug.is_some(), "no bug is called {name}");
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        plant(bug);
        let outcome = act();
        plant(None);
        std::panic::set_hook(hook);
        Some(outcome)
    }

    /// Whether a scene finds each of its bugs; `attempt` plays a seed of it and gives its finding. `RINGD_SIM_PLANT` may
    /// say `all` to look for each from the first seed on, or name some. All cores look: what is planted is a thread's own.
    pub fn find(scene: Scene, attempt: impl Fn(u64) -> Option<String> + Sync) -> bool {
        let wanted = env::var("RINGD_SIM_PLANT").unwrap_or_default();
        let is_wanted = |bug: Planted| wanted.is_empty() || wanted == "all" || wanted.contains(&format!("{bug:?}"));
        let bugs: Vec<Bug> = all()
            .filter(|(of, (bug, ..))| *of == scene && is_wanted(*bug))
            .map(|(_, bug)| *bug)
            .collect();
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let next = AtomicUsize::new(0);
        let look = || {
            let mut found = Vec::new();
            while let Some(&(bug, likely, seeds_max)) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let likely = wanted.is_empty().then_some(likely);
                plant(Some(bug));
                found.push((bug, seeds_max, look_for(likely, seeds_max, &attempt)));
                plant(None);
            }
            found
        };
        let workers = thread::available_parallelism().map_or(1, NonZero::get).min(bugs.len());
        let mut findings: Vec<_> = thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(look)).collect();
            let found = workers.into_iter().map(|worker| worker.join());
            found.flat_map(|found| found.expect("panics are findings")).collect()
        });
        std::panic::set_hook(hook);
        findings.sort_by_key(|(bug, ..)| bugs.iter().position(|(of, ..)| of == bug));
        for (bug, seeds_max, found) in &findings {
            match found {
                Some((seed, fault)) => println!("{bug:?} is found by seed {seed}: {fault:.160}"),
                None => println!("{bug:?} is not found by {seeds_max} seeds"),
            }
        }
        findings.iter().all(|(.., found)| found.is_some())
    }

    /// A seed that finds what is planted, and as what.
    fn look_for(likely: Option<u64>, seeds_max: u64, attempt: impl Fn(u64) -> Option<String>) -> Option<(u64, String)> {
        likely.into_iter().chain(1..=seeds_max).find_map(|seed| {
            // That a checker gives up is a finding of nothing.
            let fault = attempt(seed).filter(|fault| !fault.contains("too many to judge"))?;
            Some((seed, fault))
        })
    }
}
