//! How fast trust follows, on the testbed: against SPIRE's own polling, in one run.
//!
//! `cargo bench --bench federation [-- RUNS]`. It needs what `make demo` needs.

#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::time::Duration;

use trustweave_testbed::{
    federation::{CLUSTERS, Federation, PATIENCE, Plan},
    measure,
};

fn main() -> anyhow::Result<()> {
    let runs = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok());
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run(runs.unwrap_or(10)))
}

async fn run(runs: usize) -> anyhow::Result<()> {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_trustweave"), env!("CARGO_MANIFEST_DIR"));
    plan.endpoints = true;
    let mut federation = Federation::start(plan, &|line| println!("{line}")).await?;
    federation.federated().await?;
    let (mut applied, mut published, mut delivered) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        applied.push(measure::commit_to_applied(&federation).await?);
        let (commit, row) = measure::rotation(&federation).await?;
        published.push(commit);
        delivered.push(row);
    }
    let writes = measure::writes_of_a_pass_with_nothing_to_do(&federation).await?;
    let resident = measure::resident(federation.agent(CLUSTERS[0])?.id())?;
    federation.agent(CLUSTERS[0])?.terminate(PATIENCE).await?;
    let mut polled = Vec::new();
    for _ in 0..runs.min(3) {
        polled.push(measure::polling(&federation).await?);
    }
    federation.start_agent(CLUSTERS[0])?;

    println!(
        "\n{:45} {:>4} {:>8} {:>8} {:>8}",
        "SECONDS", "RUNS", "MIN", "MEDIAN", "MAX"
    );
    for (what, times) in [
        ("commit -> applied", &mut applied),
        ("rotation -> commit in git", &mut published),
        ("rotation -> the peer's SPIRE", &mut delivered),
        ("rotation -> the peer's SPIRE by its own poll", &mut polled),
    ] {
        times.sort();
        let at = |index: usize| times.get(index).map_or(0.0, Duration::as_secs_f32);
        let last = times.len().saturating_sub(1);
        println!(
            "{what:45} {:>4} {:>8.2} {:>8.2} {:>8.2}",
            times.len(),
            at(0),
            at(times.len() / 2),
            at(last)
        );
    }
    println!("writes of a pass with nothing to do: {writes}");
    println!(
        "memory of an agent (RSS): {:.1} MiB",
        f64::from(resident) / 1024.0
    );
    Ok(())
}
