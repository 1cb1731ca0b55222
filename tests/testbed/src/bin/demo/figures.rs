//! What the demonstration prints.

use std::time::Duration;

pub(super) fn headline(text: &str) {
    println!("\n== {text}");
}

pub(super) fn print_indented(text: &str) {
    for line in text.lines() {
        println!("   {line}");
    }
}

pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f32())
}

pub(super) fn mebibytes(kibibytes: u32) -> String {
    format!("{:.1} MiB", f64::from(kibibytes) / 1024.0)
}

/// What somebody prints, as a quotation.
pub(super) fn quote(who: &str, said: &str) {
    println!("   {who:16} {said}");
}

/// Measured times and other figures, told at once and again in the end.
#[derive(Default)]
pub(super) struct Figures(Vec<(String, String)>);

impl Figures {
    pub(super) fn add(&mut self, what: impl Into<String>, value: String) {
        let what = what.into();
        println!("   {what}: {value}");
        self.0.push((what, value));
    }

    pub(super) fn time(&mut self, what: impl Into<String>, time: Duration) {
        self.add(what, seconds(time));
    }

    pub(super) fn print(&self) {
        let width = self.0.iter().map(|(what, _)| what.len()).max();
        let width = width.unwrap_or_default();
        for (what, value) in &self.0 {
            println!("   {what:width$}  {value}");
        }
    }
}
