//! The API server: away, suspended, slow, overloaded, contended, and forgetful.

use std::time::Duration;

use trustweave_testbed::{Signal, faulty_api::ApiFault};

use super::{ONE, matrix::Matrix, subject::Subject};

const WHERE: &str = "API server";

/// How long it is suspended.
const SUSPENDED: Duration = Duration::from_secs(3);

/// What may happen to the API server.
pub(crate) async fn faults(subject: &mut Subject, matrix: &mut Matrix) {
    let fault = (WHERE, "killed, and started again");
    let row = subject.struck(fault, 2, async |subject| {
        let no_pass = "no pass; the last state stays in force";
        let before = subject.logged(no_pass);
        let cluster = subject.federation.testbed.cluster(ONE).unwrap();
        cluster.stop_api_server().await.unwrap();
        subject.declare().await;
        subject.rotate_peer().await;
        subject.until_logged(no_pass, before).await;
        let cluster = subject.federation.testbed.cluster(ONE).unwrap();
        cluster.start_api_server().await.unwrap();
        // Not before: SPIRE itself tries only after half a minute to write its ConfigMap again.
        subject.rotate().await;
        1
    });
    matrix.add(row.await);

    let fault = (WHERE, "suspended for 3 s (`SIGSTOP`)");
    let row = subject.struck(fault, 2, async |subject| {
        let cluster = subject.federation.testbed.cluster(ONE).unwrap();
        cluster.signal_api_server(Signal::STOP).await.unwrap();
        subject.change_all().await;
        tokio::time::sleep(SUSPENDED).await;
        let cluster = subject.federation.testbed.cluster(ONE).unwrap();
        cluster.signal_api_server(Signal::CONT).await.unwrap();
        1
    });
    matrix.add(row.await);

    // From here on by a way that can fail.
    let Subject {
        federation, api, ..
    } = subject;
    federation.ask_through(ONE, api).unwrap();
    subject.restart();
    subject.settle().await;
    for (name, fault, least) in [
        ("slow: 0.1 s later to every request", ApiFault::Slow, 30),
        (
            "overloaded: 429 to every request",
            ApiFault::TooManyRequests,
            5,
        ),
        ("contended: 409 to every patch", ApiFault::Conflict, 5),
        (
            "forgetful: 410 to every watch, after all were cut",
            ApiFault::Expired,
            5,
        ),
        ("the answer to every patch is lost", ApiFault::AnswerLost, 3),
    ] {
        let row = subject.struck((WHERE, name), 3, async |subject| {
            subject.api.set(fault);
            subject.change_all().await;
            let met = format!("`{name}` to strike {least} times");
            let struck = async || Ok((subject.api.struck() >= least).then_some(()));
            subject.until(&met, struck).await;
            subject.api.set(ApiFault::None)
        });
        matrix.add(row.await);
    }
}
