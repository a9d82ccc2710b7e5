//! Long work, told of as it goes, and what it took.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;

/// The steps so far and how long each took.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<(String, Duration)>,
}

impl Steps {
    /// Does one step. On a terminal its name turns and counts seconds; elsewhere it is one line before and one after.
    ///
    /// # Errors
    /// What the step returns.
    pub(crate) fn step<T>(
        &mut self,
        name: &str,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        let bar = ProgressBar::new_spinner();
        let style =
            ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("the template is well formed");
        bar.set_style(style);
        bar.set_message(name.to_owned());
        if bar.is_hidden() {
            eprintln!("{name} …");
        } else {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        let result = work();
        bar.finish_and_clear();
        let took = begun.elapsed();
        let how = if result.is_ok() { "done" } else { "failed" };
        eprintln!("{name}: {how} in {:.1} s", took.as_secs_f64());
        self.done.push((name.to_owned(), took));
        result
    }

    /// As [`Steps::step`] for work that writes its own progress to the terminal.
    ///
    /// # Errors
    /// What the step returns.
    pub(crate) fn loud<T>(
        &mut self,
        name: &str,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        eprintln!("{name} …");
        let begun = Instant::now();
        let result = work();
        let took = begun.elapsed();
        let how = if result.is_ok() { "done" } else { "failed" };
        eprintln!("{name}: {how} in {:.1} s", took.as_secs_f64());
        self.done.push((name.to_owned(), took));
        result
    }

    /// Adds something that was measured elsewhere.
    pub(crate) fn add(&mut self, name: &str, took: Duration) {
        self.done.push((name.to_owned(), took));
    }

    /// One line a step.
    pub(crate) fn table(&self) -> String {
        let width = self.done.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        let line =
            |(name, took): &(String, Duration)| format!("  {name:<width$}  {:>7.1} s\n", took.as_secs_f64());
        self.done.iter().map(line).collect()
    }
}
