//! The running programs of a node, which can be stopped and started again.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::Mutex;

use crate::process::{Process, Program};
use crate::reaper::Reaper;

/// Programs by their name.
pub(super) struct Components {
    reaper: Arc<Reaper>,
    programs: Mutex<BTreeMap<String, (Program, Option<Process>)>>,
}

impl Components {
    pub(super) fn new(reaper: &Arc<Reaper>) -> Self {
        Self {
            reaper: Arc::clone(reaper),
            programs: Mutex::default(),
        }
    }

    /// Starts one and remembers it.
    pub(super) async fn add(&self, program: Program) -> anyhow::Result<()> {
        let process = Process::start(&self.reaper, &program)?;
        let mut programs = self.programs.lock().await;
        programs.insert(program.name.clone(), (program, Some(process)));
        Ok(())
    }

    /// Waits for something that a program does, or for its end.
    pub(super) async fn until<T, F>(
        &self,
        name: &str,
        deadline: std::time::Duration,
        probe: impl FnMut() -> F,
    ) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<Option<T>>>,
    {
        let programs = self.programs.lock().await;
        let process = programs.get(name).and_then(|(_, process)| process.as_ref());
        let process = process.with_context(|| format!("{name} does not run"))?;
        process.until_ready(deadline, probe).await
    }

    /// Kills one.
    pub(super) async fn stop(&self, name: &str) -> anyhow::Result<()> {
        let mut programs = self.programs.lock().await;
        let (_, process) = programs.get_mut(name).with_context(|| unknown(name))?;
        process.take().map_or(Ok(()), |process| process.kill())
    }

    /// Starts one again.
    pub(super) async fn start(&self, name: &str) -> anyhow::Result<()> {
        let mut programs = self.programs.lock().await;
        let (program, process) = programs.get_mut(name).with_context(|| unknown(name))?;
        if process.is_none() {
            *process = Some(Process::start(&self.reaper, program)?);
        }
        Ok(())
    }
}

fn unknown(name: &str) -> String {
    format!("no program of a node is called {name}")
}
