//! The tables of `status`, and what is wrong below them.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::output;
use crate::{
    cluster::types::{Condition, GitSyncStatus},
    federation::server::{ENDPOINT_EXPOSED, SERVER_CONFIGURED},
    reconcile::reported::{Reported, ReportedPeer, condition},
};

/// The answer for people.
pub(super) fn text(report: &Reported, now: Timestamp, wide: bool) -> String {
    let mut text = cluster(&report.git_sync, now, wide);
    text.push('\n');
    if report.peers.is_empty() {
        text.push_str("no peers\n");
    } else {
        text.push_str(&peers(&report.peers, now, wide));
    }
    for (title, lines) in complaints(report) {
        let _ = write!(text, "\n{title}:\n");
        for line in lines {
            let _ = writeln!(text, "  {}", output::visible(&line));
        }
    }
    text
}

fn cell(text: &str) -> String {
    if text.is_empty() { "<none>" } else { text }.to_owned()
}

fn optional(text: Option<&String>) -> String {
    cell(text.map_or("", String::as_str))
}

fn state(conditions: &[Condition], kind: &str) -> String {
    cell(condition(conditions, kind).map_or("", |found| &found.status))
}

/// A moment by its distance; what is none, as it is.
fn moment(text: Option<&String>, distance: impl Fn(Timestamp) -> String) -> String {
    let at = text.and_then(|text| text.parse::<Timestamp>().ok());
    at.map_or_else(|| optional(text), distance)
}

/// Columns with their headings; some are shown only where there is room.
struct Columns(Vec<(&'static str, String)>);

impl Columns {
    fn table(rows: Vec<Self>) -> String {
        let Some(first) = rows.first() else {
            return String::new();
        };
        let header: Vec<&str> = first.0.iter().map(|(heading, _)| *heading).collect();
        let cells = |row: Self| row.0.into_iter().map(|(_, cell)| cell).collect();
        output::table(&header, rows.into_iter().map(cells).collect())
    }
}

fn cluster(git_sync: &GitSyncStatus, now: Timestamp, wide: bool) -> String {
    let published = git_sync.published.as_ref();
    let mut columns = vec![
        ("CLUSTER", cell(&git_sync.cluster)),
        ("TRUST DOMAIN", cell(&git_sync.trust_domain)),
        ("REVISION", optional(git_sync.short_revision.as_ref())),
        ("READY", state(&git_sync.conditions, "Ready")),
        ("OBJECTS", git_sync.objects.to_string()),
        ("PEERS", cell(&git_sync.peers)),
        (
            "PUBLISHED",
            cell(&published.map_or_else(String::new, |it| it.serial.to_string())),
        ),
        (
            "SYNCED",
            moment(git_sync.last_change.as_ref(), |at| output::age(at, now)),
        ),
    ];
    if wide {
        let health = git_sync.health.as_ref().map(|health| {
            let all = health.current + health.in_progress + health.failed + health.terminating;
            format!("{}/{all}", health.current)
        });
        columns.extend([
            ("HEALTHY", optional(health.as_ref())),
            ("BUNDLE SOURCE", optional(git_sync.bundle_source.as_ref())),
            (
                "BRANCH",
                cell(published.map_or("", |it| it.branch.as_str())),
            ),
        ]);
    }
    Columns::table(vec![Columns(columns)])
}

fn peers(peers: &[ReportedPeer], now: Timestamp, wide: bool) -> String {
    let row = |peer: &ReportedPeer| {
        let status = &peer.status;
        let mut columns = vec![
            ("TRUST DOMAIN", cell(&peer.trust_domain)),
            ("PHASE", cell(&status.phase)),
            ("SERIAL", optional(status.version.as_ref())),
            ("DIGEST", optional(status.short_digest.as_ref())),
            ("PUSHED", state(&status.conditions, "Pushed")),
            ("CONFIRMED", state(&status.conditions, "Confirmed")),
            (
                "EXPIRES",
                moment(status.earliest_expiry.as_ref(), |at| output::until(at, now)),
            ),
            (
                "DELIVERED",
                moment(status.last_delivered.as_ref(), |at| output::age(at, now)),
            ),
            ("REGISTRATIONS", status.registrations.to_string()),
        ];
        if wide {
            let lag = status.delivery_lag_seconds.map(|lag| format!("{lag}s"));
            columns.extend([
                ("HELD BACK", status.held_back.len().to_string()),
                ("REVOKED KEYS", status.revoked.len().to_string()),
                ("LAG", optional(lag.as_ref())),
                (
                    "TRUSTED UNTIL",
                    moment(status.trusted_until.as_ref(), |at| output::until(at, now)),
                ),
                ("FIRST USE", optional(status.first_use.as_ref())),
            ]);
        }
        columns.push(("STATUS", status.message.clone()));
        Columns(columns)
    };
    Columns::table(peers.iter().map(row).collect())
}

/// How the SPIRE server stands, and what is wrong, by title.
fn complaints(report: &Reported) -> Vec<(&'static str, Vec<String>)> {
    let git_sync = &report.git_sync;
    let conditions = git_sync.conditions.iter();
    let amiss = conditions.filter(|condition| condition.status == "False");
    let server = git_sync.conditions.iter().filter(|condition| {
        let of_server = [SERVER_CONFIGURED, ENDPOINT_EXPOSED].contains(&condition.kind.as_str());
        of_server && condition.status != "False"
    });
    let held_back = report.peers.iter().flat_map(|peer| {
        let wait = |reference| format!("{reference} waits for {}", peer.trust_domain);
        peer.status.held_back.iter().map(wait)
    });
    let complaints = [
        (
            "Not well",
            amiss
                .map(|one| format!("{}: {}", one.kind, one.message))
                .collect(),
        ),
        (
            "SPIRE server",
            server
                .map(|one| format!("{}: {}: {}", one.kind, one.reason, one.message))
                .collect(),
        ),
        ("Could not be written", git_sync.failures.clone()),
        ("Wrong with the repository", git_sync.diagnostics.clone()),
        ("Held back", held_back.collect()),
        ("Not healthy", git_sync.unhealthy.clone()),
        ("Changed in the cluster", git_sync.drifted.clone()),
        ("Changed again and again", git_sync.contested.clone()),
        ("Another tool's too", git_sync.shared.clone()),
        ("Being deleted", git_sync.pruning.clone()),
        ("Kept though no longer declared", git_sync.kept.clone()),
        ("Left alone", git_sync.left_alone.clone()),
    ];
    complaints
        .into_iter()
        .filter(|(_, lines): &(_, Vec<String>)| !lines.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::reported::tests::reported;

    #[test]
    fn the_tables_tell_the_whole_story() {
        let report = reported();
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        insta::assert_snapshot!(text(&report, now, false), @r"
        CLUSTER     TRUST DOMAIN   REVISION   READY   OBJECTS   PEERS   PUBLISHED   SYNCED
        cluster-1   a.test         0123abcd   False   12        1/2     4           5m

        TRUST DOMAIN   PHASE       SERIAL   DIGEST         PUSHED   CONFIRMED   EXPIRES   DELIVERED   REGISTRATIONS   STATUS
        b.test         Federated   0.7      0123456789ab   True     Unknown     in 24h    2m          3               SPIRE holds the peer's bundle
        c.test         Pending     <none>   <none>         <none>   <none>      <none>    <none>      0               nothing is published yet

        Not well:
          Ready: 1 write(s) failed

        SPIRE server:
          ServerConfigured: RollingOut: 0 of 1 pods are ready

        Could not be written:
          Deployment.apps shop/api: no

        Held back:
          ClusterSPIFFEID.spire.spiffe.io api waits for c.test
        ");
    }

    #[test]
    fn the_wide_tables_tell_more() {
        let mut report = reported();
        report.git_sync.drifted = vec!["ConfigMap shop/a: .data.x by kubectl\u{1b}[2J".to_owned()];
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        insta::assert_snapshot!(text(&report, now, true), @r"
        CLUSTER     TRUST DOMAIN   REVISION   READY   OBJECTS   PEERS   PUBLISHED   SYNCED   HEALTHY   BUNDLE SOURCE   BRANCH
        cluster-1   a.test         0123abcd   False   12        1/2     4           5m       <none>    <none>          <none>

        TRUST DOMAIN   PHASE       SERIAL   DIGEST         PUSHED   CONFIRMED   EXPIRES   DELIVERED   REGISTRATIONS   HELD BACK   REVOKED KEYS   LAG      TRUSTED UNTIL   FIRST USE   STATUS
        b.test         Federated   0.7      0123456789ab   True     Unknown     in 24h    2m          3               0           0              <none>   <none>          <none>      SPIRE holds the peer's bundle
        c.test         Pending     <none>   <none>         <none>   <none>      <none>    <none>      0               1           0              <none>   <none>          <none>      nothing is published yet

        Not well:
          Ready: 1 write(s) failed

        SPIRE server:
          ServerConfigured: RollingOut: 0 of 1 pods are ready

        Could not be written:
          Deployment.apps shop/api: no

        Held back:
          ClusterSPIFFEID.spire.spiffe.io api waits for c.test

        Changed in the cluster:
          ConfigMap shop/a: .data.x by kubectl\u{1b}[2J
        ");
    }
}
