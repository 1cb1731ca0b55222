//! The fuzz targets, without a fuzzer: what holds of the seeds, and of what a byte or a cut makes of them.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

#[expect(unreachable_pub, reason = "the fuzz targets see it as a crate")]
#[path = "../fuzz/src/lib.rs"]
mod properties;
#[expect(dead_code, reason = "the tests of rendering choose more")]
#[path = "render/random.rs"]
mod random;

use std::{fs, path::Path};

use self::{properties::TARGETS, random::Random};

/// How many variations of each seed are tried, if nothing else is asked for.
const VARIATIONS: u64 = 15;

/// As many as `TRUSTWEAVE_SEEDS_VARIATIONS` says, each from a seed of its own.
fn variations() -> u64 {
    let asked = std::env::var_os("TRUSTWEAVE_SEEDS_VARIATIONS");
    asked.map_or(VARIATIONS, |number| {
        number.to_str().unwrap().parse().unwrap()
    })
}

#[test]
fn what_the_fuzzer_asserts_holds_of_the_seeds() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (target, holds) in TARGETS {
        let files = fs::read_dir(seeds.join(target)).unwrap();
        let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 3, "{target} has {} seeds", files.len());
        for file in files {
            let seed = fs::read(&file).unwrap();
            holds(&seed);
            for number in 0..variations() {
                holds(&varied(&seed, &mut Random::new(number)));
            }
        }
    }
}

/// The seed with another byte, without some, or with some twice.
fn varied(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut varied = seed.to_vec();
    let at = random.below(seed.len());
    let end = at + random.below((seed.len() - at).min(64) + 1);
    match random.below(3) {
        0 => varied[at] = random.number().to_le_bytes()[0],
        1 => drop(varied.drain(at..end)),
        _ => drop(varied.splice(at..at, seed[at..end].iter().copied())),
    }
    varied
}
