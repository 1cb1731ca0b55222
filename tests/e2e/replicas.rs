//! Two agents in one cluster: one writes, the other takes over.

use std::time::{Duration, Instant};

use trustweave_testbed::{
    Signal,
    federation::{Federation, Replica},
};

use super::{ONE, TWO, holds_current_keys, plan, progress, publication, rotate};

/// How long the others wait for a holder that is not heard of, and a little for the machine.
const LEASE: Duration = Duration::from_secs(15);

async fn leads(replica: &Replica) -> anyhow::Result<bool> {
    Ok(replica.metric("trustweave_leader").await? > 0.0)
}

/// Waits until a replica writes; how long that took.
async fn takes_over(federation: &Federation, replica: &Replica) -> Duration {
    let begin = Instant::now();
    federation
        .until("the other agent to take over", async || {
            Ok(leads(replica).await?.then_some(()))
        })
        .await
        .unwrap();
    begin.elapsed()
}

/// Waits until a replica stands by, and says so.
async fn stands_by(federation: &Federation, replica: &Replica) {
    federation
        .until("the agent to stand by", async || {
            let ready = replica.http_get("/readyz").await?;
            anyhow::ensure!(ready.starts_with("standby: "), "/readyz says {ready}");
            Ok(Some(()))
        })
        .await
        .unwrap();
    assert!(!leads(replica).await.unwrap());
}

/// Whoever writes: what was published has gone up by one for each rotation, and arrives.
async fn published_once_each(federation: &Federation, rotations: usize) {
    rotate(federation, ONE).await;
    holds_current_keys(federation, TWO, ONE).await;
    let branch = publication::branch(ONE);
    let subjects = federation.testbed.git.log(&branch).await.unwrap();
    let serials: Vec<_> = subjects
        .iter()
        .rev()
        .filter_map(|subject| subject.rsplit_once("serial "))
        .map(|(_, serial)| serial.parse::<usize>().unwrap())
        .collect();
    assert_eq!(serials, (1..=rotations + 1).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_agent_of_two_writes_and_the_other_takes_over() {
    let mut federation = Federation::prepare(plan(), &progress).await.unwrap();
    federation.start_agent(TWO).unwrap();
    let first = federation.start_replica(ONE, "first").unwrap();
    takes_over(&federation, &first).await;
    let second = federation.start_replica(ONE, "second").unwrap();
    federation.federated().await.unwrap();
    stands_by(&federation, &second).await;
    published_once_each(&federation, 1).await;
    let passes = second.metric("trustweave_passes_total").await.unwrap();
    assert!(passes < 1.0, "the agent on standby made {passes} passes");

    // A rollout: who leaves gives the Lease back, and nobody waits until it is over.
    first
        .process
        .terminate(Duration::from_secs(30))
        .await
        .unwrap();
    let took = takes_over(&federation, &second).await;
    progress(&format!("handed over within {:.1} s", took.as_secs_f32()));
    assert!(took < LEASE / 2, "handed over only after {took:?}");
    published_once_each(&federation, 2).await;

    // A holder that is frozen is out, also when it wakes up.
    let third = federation.start_replica(ONE, "third").unwrap();
    stands_by(&federation, &third).await;
    second.process.signal(Signal::STOP).unwrap();
    let took = takes_over(&federation, &third).await;
    progress(&format!("taken over after {:.1} s", took.as_secs_f32()));
    published_once_each(&federation, 3).await;
    second.process.signal(Signal::CONT).unwrap();
    stands_by(&federation, &second).await;
    published_once_each(&federation, 4).await;
    let written = second.metric("trustweave_publications_total").await;
    assert!(
        written.unwrap() < 2.0,
        "it published after it had been frozen"
    );

    // One that is killed gives nothing back.
    third.process.kill().unwrap();
    let took = takes_over(&federation, &second).await;
    assert!(took > LEASE / 3, "taken over while it might have written");
    published_once_each(&federation, 5).await;
}
