//! The loop from SPIRE to git: when passes are made, and what is told of them.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    config::{Config, PublishBranch},
    leadership::terms,
    now, random,
    telemetry::PassLabels,
};
use crate::{
    cluster::{
        Cluster,
        types::{GitSyncStatus, PublishedStatus, git_sync_reference},
    },
    forge,
    git::{Heads, Mirror, Published, SigningKey},
    model::{attestation::Serial, declaration::TrustDomainSpec, repository::Revision},
    reconcile::{
        proposal::{self, Proposed},
        publish::{self, Publisher, Target},
        schedule::{Backoff, INTERVAL, Trigger, jittered},
        sync::PublishReport,
    },
    spire::{BundleSource, Source},
};

/// The address of the commits that the agent makes; nobody reads mail there.
const EMAIL_DOMAIN: &str = "trustweave.invalid";

/// Publishes the own bundle when it, or what stands in git, changed, as long as this agent leads.
pub(super) async fn publish_own(shared: Arc<Shared>) -> anyhow::Result<()> {
    terms(&shared, |shared, over| async move {
        lead(&shared, &over).await;
        // Another agent may publish from now on.
        shared.report.send_replace(None);
        Ok(())
    })
    .await
}

/// Makes passes until the term is over.
async fn lead(shared: &Arc<Shared>, over: &CancellationToken) {
    let Some(key) = shared.key.clone() else {
        shared.report.send_replace(Some(PublishReport {
            failure: Some("the agent has no signing key: it does not publish".to_owned()),
            ..PublishReport::default()
        }));
        over.cancelled().await;
        return;
    };
    let config = &shared.config;
    let target = target(config);
    let forge = config.forge().map(forge::Client::new);
    let mut publisher: Option<Publisher> = None;
    let mut open: Option<(TrustDomainSpec, Source)> = None;
    let mut own = shared.own.subscribe();
    let mut heads = shared.heads.subscribe();
    let mut standing = None;
    let mut backoff = Backoff::default();
    let mut retry: Option<Duration> = None;
    let mut last = Serial(0);
    let mut epoch = None;
    let mut trigger = Trigger::Start;
    loop {
        let declared = own.borrow_and_update().clone();
        if open.as_ref().map(|(declaration, _)| declaration) != declared.as_ref() {
            open = declared.map(|declaration| {
                let client = shared.cluster.client();
                let source = Source::open(&client, &config.trust_domain, &declaration.spire);
                (declaration, source)
            });
        }
        if let Some((declaration, source)) = &open {
            let pass = async {
                if publisher.is_none() {
                    publisher = Some(Publisher {
                        cluster: config.cluster.clone(),
                        cluster_uid: shared.cluster.uid().await?,
                        trust_domain: config.trust_domain.clone(),
                        target: target.clone(),
                        email_domain: EMAIL_DOMAIN,
                        fence: shared.fence.clone(),
                    });
                }
                if epoch.replace(declaration.epoch) != Some(declaration.epoch) {
                    last = Serial(0);
                }
                last = last.max(remembered_serial(shared, declaration).await?);
                let Some(publisher) = &publisher else {
                    anyhow::bail!("the cluster has no UID");
                };
                let ports = (&*shared.mirror, forge.as_ref());
                make_pass(ports, source, publisher, &key, declaration, last).await
            };
            let outcome = (pass.await, source.describe());
            retry = finish_publish(shared, trigger, outcome, &mut last)
                .then(|| backoff.after_failure(random()));
            if retry.is_none() {
                backoff.reset();
            }
        }
        let quiet = retry.unwrap_or_else(|| jittered(INTERVAL, INTERVAL / 10, random()));
        trigger = loop {
            let changed = async {
                match &open {
                    Some((_, source)) => source.changed().await,
                    None => std::future::pending().await,
                }
            };
            break tokio::select! {
                () = over.cancelled() => return,
                () = changed => Trigger::Bundle,
                Ok(()) = own.changed() => Trigger::OtherLoop,
                Ok(()) = heads.changed() => {
                    let heads = heads.borrow_and_update();
                    let tip = heads.as_ref().and_then(|heads| followed(heads, config));
                    // Only what stands where we publish is our business.
                    if std::mem::replace(&mut standing, tip.clone()) == tip {
                        continue;
                    }
                    Trigger::Git
                }
                () = tokio::time::sleep(quiet) => match retry {
                    Some(_) => Trigger::Retry,
                    None => Trigger::Interval,
                },
            };
        };
    }
}

/// Where the own bundle is to stand.
fn target(config: &Config) -> Target {
    match config.publish.branch {
        PublishBranch::Own => Target::own_branch(&config.trust_domain),
        PublishBranch::Main | PublishBranch::PullRequest => {
            Target::directory_on(&config.git.branch, &config.trust_domain)
        }
    }
}

/// The commit whose successors are worth a pass.
fn followed(heads: &Heads, config: &Config) -> Option<Revision> {
    match config.publish.branch {
        PublishBranch::Own | PublishBranch::Main => {
            heads.publications.get(&config.trust_domain).cloned()
        }
        // People may have merged.
        PublishBranch::PullRequest => heads.main.clone(),
    }
}

/// Publishes, or asks people to.
async fn make_pass(
    (mirror, forge): (&Mirror, Option<&forge::Client>),
    source: &Source,
    publisher: &Publisher,
    key: &SigningKey,
    declaration: &TrustDomainSpec,
    last: Serial,
) -> anyhow::Result<proposal::Outcome> {
    Ok(match forge {
        None => {
            let pass = publish::pass(mirror, source, publisher, key, declaration, last, now());
            pass.await?.into()
        }
        Some(forge) => {
            let ports = (mirror, forge);
            let pass = proposal::pass(ports, source, publisher, key, declaration, last, now());
            pass.await?
        }
    })
}

/// The serial that the cluster remembers to have published in this epoch.
async fn remembered_serial(
    shared: &Shared,
    declaration: &TrustDomainSpec,
) -> anyhow::Result<Serial> {
    let found = shared.cluster.get(&git_sync_reference()).await?;
    let status = GitSyncStatus::of(found.as_ref());
    Ok(status
        .published
        .filter(|published| published.epoch == declaration.epoch)
        .map_or(Serial(0), |published| Serial(published.serial)))
}

/// Logs and counts a commit.
fn tell_pushed(
    shared: &Shared,
    trigger: Trigger,
    (revision, attempts): (&Revision, u32),
    outcome: &proposal::Outcome,
) {
    match (&outcome.proposed, &outcome.standing) {
        (Some(Proposed { serial, url, .. }), _) => {
            tracing::info!(%trigger, %revision, attempts, %serial, url, "proposed the own bundle");
        }
        (None, Some(PublishedStatus { serial, branch, .. })) => {
            shared.metrics.publications.inc();
            tracing::info!(%trigger, %revision, attempts, serial, branch, "published the own bundle");
        }
        (None, None) => {}
    }
}

/// Logs, counts and reports a pass; whether it should be made again soon.
fn finish_publish(
    shared: &Shared,
    trigger: Trigger,
    (outcome, source): (anyhow::Result<proposal::Outcome>, String),
    last: &mut Serial,
) -> bool {
    let metrics = &shared.metrics;
    let labels = |result| PassLabels {
        r#loop: "publish",
        result,
    };
    let failed = outcome.is_err();
    let report = match outcome {
        Ok(outcome) => {
            metrics.passes.get_or_create(&labels("success")).inc();
            if let Some(standing) = &outcome.standing {
                *last = (*last).max(Serial(standing.serial));
                let serial = i64::try_from(standing.serial).unwrap_or(i64::MAX);
                metrics.published_serial.set(serial);
            }
            if let Published::Committed { revision, attempts } = &outcome.pushed {
                tell_pushed(shared, trigger, (revision, *attempts), &outcome);
            }
            PublishReport {
                published: outcome.standing,
                source: Some(source),
                proposed: outcome.proposed,
                failure: None,
            }
        }
        Err(error) => {
            metrics.passes.get_or_create(&labels("failure")).inc();
            let text = format!("{error:#}");
            let published = shared.report.borrow().clone().and_then(|r| r.published);
            let known = shared
                .report
                .borrow()
                .as_ref()
                .and_then(|r| r.failure.clone());
            if known.as_ref() != Some(&text) {
                tracing::warn!(%trigger, error = text, "the own bundle is not published");
            }
            PublishReport {
                published,
                source: Some(source),
                proposed: None,
                failure: Some(text),
            }
        }
    };
    shared.report.send_if_modified(|before| {
        let changed = before.as_ref() != Some(&report);
        *before = Some(report);
        changed
    });
    failed
}
