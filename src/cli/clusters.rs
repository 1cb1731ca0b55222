//! The clusters that a verb looks at: one or several, by kubeconfig and context.

use std::path::PathBuf;

use clap::Args;

use super::{
    Connection,
    facts::{self, Asked},
    output,
};
use crate::federation::checkup::ClusterFacts;

/// Which clusters.
#[derive(Debug, Args)]
pub(super) struct Clusters {
    /// A kubeconfig file, if not the default one or those of `KUBECONFIG`; of several, the current context
    /// of each is examined
    #[arg(long = "kubeconfig", value_name = "FILE")]
    kubeconfigs: Vec<PathBuf>,

    /// A context in the kubeconfig, if not the current one
    #[arg(long = "context", value_name = "NAME")]
    contexts: Vec<String>,
}

impl Clusters {
    /// How each is reached, and what people call it.
    fn connections(&self) -> anyhow::Result<Vec<(String, Connection)>> {
        if self.kubeconfigs.len() > 1 {
            if !self.contexts.is_empty() {
                anyhow::bail!(
                    "several kubeconfigs and contexts: merge the files with KUBECONFIG=a:b, or leave --context out"
                );
            }
            let each = self.kubeconfigs.iter().map(|file| {
                let connection = Connection {
                    kubeconfig: Some(file.clone()),
                    context: None,
                };
                (format!("cluster of {}", file.display()), connection)
            });
            return Ok(each.collect());
        }
        let connection = |context: Option<&String>| Connection {
            kubeconfig: self.kubeconfigs.first().cloned(),
            context: context.cloned(),
        };
        if self.contexts.is_empty() {
            let name = "cluster of the current context".to_owned();
            return Ok(vec![(name, connection(None))]);
        }
        let contexts = self.contexts.iter();
        let each = contexts.map(|it| (format!("cluster of context {it}"), connection(Some(it))));
        Ok(each.collect())
    }

    /// Reads what they tell, one after the other; `told` says of each that it is its turn.
    pub(super) async fn facts(
        &self,
        asked: &Asked<'_>,
        told: bool,
    ) -> anyhow::Result<Vec<ClusterFacts>> {
        let mut clusters = Vec::new();
        for (name, connection) in self.connections()? {
            if told {
                output::note(&format!("examining the {name}"));
            }
            clusters.push(facts::cluster(&connection, name, asked).await?);
        }
        Ok(clusters)
    }
}
