//! The fault matrix: one fault after the other strikes an agent, what it talks to, or what it runs on, while
//! everything changes that it has to carry. After each, everything declared is applied exactly, everything
//! published stands on its branch, and nothing of it twice. docs/faults.md has the table.
//!
//! Everything is real: API server, git server, SPIRE, the agent's program. Proxies in front of the first two
//! add what these can't be made to do on demand.
//!
//! `TRUSTWEAVE_FAULTS_SEED` repeats the moments of a run's kills.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

mod agent;
mod api_server;
mod clock;
mod disk;
#[expect(dead_code, reason = "the end-to-end tests publish for others, too")]
#[path = "../e2e/made_up.rs"]
mod made_up;
mod matrix;
#[expect(dead_code, reason = "the end-to-end tests look at overlays closer")]
#[path = "../e2e/overlay.rs"]
mod overlay;
#[expect(dead_code, reason = "the end-to-end tests tamper with publications")]
#[path = "../e2e/publication.rs"]
mod publication;
mod publishers;
#[expect(dead_code, reason = "the tests of rendering choose more")]
#[path = "../render/random.rs"]
mod random;
mod remote;
#[path = "../git/setup.rs"]
mod setup;
mod subject;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    time::Duration,
};

use serde_json::Value;
use trustweave::model::bundle::Bundle;
use trustweave_testbed::federation::Plan;

use self::{matrix::Matrix, random::Random, subject::Subject};

/// The cluster whose agent is struck.
const ONE: &str = "cluster-1";

/// A plan with a fast poll.
fn plan() -> Plan {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_trustweave"), env!("CARGO_MANIFEST_DIR"));
    plan.poll = Duration::from_millis(200);
    plan
}

#[expect(clippy::print_stderr, reason = "a long test must be seen to progress")]
fn progress(line: &str) {
    eprintln!("{line}");
}

/// A bundle document, read. SPIRE writes an empty list of keys as null.
fn bundle(document: &Value) -> Bundle {
    if document["keys"].is_null() {
        return Bundle::empty();
    }
    Bundle::parse(document.to_string().as_bytes()).unwrap()
}

/// A condition of a status.
fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .find(|condition| condition["type"] == kind)
        .unwrap_or(&Value::Null)
}

/// Random moments: those of the run with this seed, if there is one.
fn random() -> Random {
    let given = std::env::var_os("TRUSTWEAVE_FAULTS_SEED");
    let given = given.map(|seed| seed.to_str().unwrap().parse().unwrap());
    let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    progress(&format!("TRUSTWEAVE_FAULTS_SEED={seed}"));
    Random::new(seed)
}

/// All faults that an agent meets.
async fn agents() -> Matrix {
    let mut matrix = Matrix::default();
    let mut subject = Subject::start().await;
    agent::faults(&mut subject, &mut random(), &mut matrix).await;
    api_server::faults(&mut subject, &mut matrix).await;
    remote::faults(&mut subject, &mut matrix).await;
    disk::faults(&mut subject, &mut matrix).await;
    clock::faults(&mut subject, &mut matrix).await;
    matrix
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the table is what this shows")]
async fn nothing_is_lost_and_nothing_doubled() {
    let (mut matrix, publishers) = tokio::join!(agents(), publishers::under_fire());
    matrix.append(publishers);
    println!("\n{}", matrix.table());
    matrix.passes();
    matrix.documented();
}
