//! Where a verb finds declarations and publications: a local git repository.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::Timestamp;

use super::super::{
    output,
    repository::{self, Found},
};
use crate::{
    git::LocalRepository,
    model::{
        attestation::{self, Publication, Rejection},
        declaration::TrustDomainSpec,
        declarations::Declarations,
        diagnostic::Diagnostic,
        repository::{
            Revision, Tree, trust_domain_directory, trust_domain_path, trust_domains_directory,
        },
        trust_domain::TrustDomain,
    },
    reconcile::desired,
};

/// Which repository, and which of its commits is the reviewed one.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The directory of the git repository
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) repo: PathBuf,

    /// The commit whose declarations name the signers
    #[arg(long, value_name = "REF", default_value = "HEAD")]
    pub(super) declarations: String,
}

/// A repository, and the declarations of one of its commits.
pub(super) struct Source {
    pub(super) repository: LocalRepository,
    pub(super) declarations: Declarations,
    diagnostics: Vec<Diagnostic>,
    reference: String,
    revision: Revision,
    tree: Tree,
}

impl Place {
    pub(super) fn open(&self) -> anyhow::Result<Source> {
        let repository = LocalRepository::open(&self.repo)
            .with_context(|| format!("open the git repository in `{}`", self.repo.display()))?;
        let revision = repository.resolve(&self.declarations)?;
        let tree = repository.tree(&revision)?;
        let (declarations, diagnostics) = Declarations::load(&tree, None);
        Ok(Source {
            repository,
            declarations,
            diagnostics,
            reference: self.declarations.clone(),
            revision,
            tree,
        })
    }
}

impl Source {
    /// The declarations' commit, in words.
    pub(super) fn words(&self) -> String {
        format!("{} ({})", self.reference, self.revision.short())
    }

    /// What the trust domain's owners declare.
    pub(super) fn declaration(
        &self,
        trust_domain: &TrustDomain,
    ) -> anyhow::Result<&TrustDomainSpec> {
        if let Some(declaration) = self.declarations.trust_domains.get(trust_domain) {
            return Ok(declaration);
        }
        let path = trust_domain_path(trust_domain);
        let own: Vec<_> = self
            .diagnostics
            .iter()
            .filter(|one| one.path == path)
            .cloned()
            .collect();
        if own.is_empty() {
            bail!(
                "`{}` declares no trust domain `{trust_domain}`",
                self.reference
            );
        }
        output::diagnostics(&own, &self.tree);
        bail!("the declaration of `{trust_domain}` can't be used");
    }

    /// The published files: on the trust domain's own branch, or else beside its declaration.
    pub(super) fn find(&self, trust_domain: &TrustDomain) -> anyhow::Result<Found> {
        let branch = repository::branches(&self.repository, trust_domain)?
            .into_iter()
            .next();
        Ok(branch.unwrap_or_else(|| self.beside(trust_domain)))
    }

    /// Everything that is published for the trust domain, wherever it stands.
    pub(super) fn find_all(&self, trust_domain: &TrustDomain) -> anyhow::Result<Vec<Found>> {
        let mut found = repository::branches(&self.repository, trust_domain)?;
        found.push(self.beside(trust_domain));
        found.retain(|found| !found.files.is_empty());
        Ok(found)
    }

    /// The bundle that the trust domain publishes, verified; or why there is none.
    pub(super) fn publication(
        &self,
        trust_domain: &TrustDomain,
        now: Timestamp,
    ) -> anyhow::Result<Result<Publication, Rejection>> {
        let declaration = self.declaration(trust_domain)?;
        let found = self.find(trust_domain)?;
        Ok(attestation::verify(
            trust_domain,
            declaration,
            &found.files,
            now,
        ))
    }

    /// The declared trust domains: the named ones, or all. What can't be used is told; the flag says
    /// that something can't.
    pub(super) fn named(
        &self,
        names: &[TrustDomain],
    ) -> anyhow::Result<(BTreeMap<TrustDomain, &TrustDomainSpec>, bool)> {
        if names.is_empty() {
            let directory = trust_domains_directory();
            let broken = |one: &&Diagnostic| {
                one.is_error()
                    && one.path.is_within(&directory)
                    && one.path.file_name() == "trust-domain.yaml"
            };
            let broken: Vec<_> = self.diagnostics.iter().filter(broken).cloned().collect();
            output::diagnostics(&broken, &self.tree);
            let all = self.declarations.trust_domains.iter();
            let all = all.map(|(name, spec)| (name.clone(), spec)).collect();
            return Ok((all, !broken.is_empty()));
        }
        let mut asked = BTreeMap::new();
        for name in names {
            asked.insert(name.clone(), self.declaration(name)?);
        }
        Ok((asked, false))
    }

    /// The trust domain's directory on the reviewed branch.
    fn beside(&self, trust_domain: &TrustDomain) -> Found {
        let directory = trust_domain_directory(trust_domain);
        Found {
            place: format!("{directory} in {}", self.words()),
            files: desired::publication_on_main(&self.tree, trust_domain),
            revision: None,
        }
    }
}
