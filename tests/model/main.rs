//! Peers' lives, in a world where anything may happen in any order: a model of SPIRE and of everything
//! around it, and what must hold at every moment. `PROPTEST_CASES` says how many histories are tried.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

mod agent;
mod checks;
mod events;
mod keys;
mod rest;
mod spire;
mod world;

use proptest::{prelude::*, test_runner::RngSeed};

use self::{
    events::Event,
    world::{Setting, World},
};

/// How long it may take until everything is as it should be, once nothing happens any more: a
/// repetition that was announced may be an hour away.
const REST: i64 = 3 * 3600;

/// Lives a history, and gives everything an end. What was broken first is returned.
fn live(setting: Setting, history: &[(Event, u32)], trace: bool) -> Result<(), String> {
    let mut world = World::new(setting, trace);
    world.wait(60);
    for (event, seconds) in history {
        world.happen(event);
        world.wait(i64::from(*seconds));
        if world.checks.broken.is_some() {
            break;
        }
    }
    if world.checks.broken.is_none() {
        world
            .checks
            .trace(world.now, format_args!("nothing happens any more"));
        world.calm();
        world.wait(REST);
    }
    if world.checks.broken.is_none() {
        world.check_rest();
    }
    match (world.checks.broken, world.checks.log) {
        (None, _) => Ok(()),
        (Some(broken), None) => Err(broken),
        (Some(broken), Some(log)) => Err(format!("{broken}\n{}", log.join("\n"))),
    }
}

fn setting() -> impl Strategy<Value = Setting> {
    (any::<bool>(), any::<bool>()).prop_map(|(triggers, view)| Setting { triggers, view })
}

/// Every run tells the same stories; `PROPTEST_RNG_SEED` and `PROPTEST_CASES` ask for others, and more.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_nothing_untrusted_is_trusted_and_nobody_loses_an_identity(
        setting in setting(),
        history in events::history(),
    ) {
        if live(setting, &history, false).is_err() {
            // Once more, with everything that happened.
            live(setting, &history, true).map_err(TestCaseError::fail)?;
        }
    }
}
