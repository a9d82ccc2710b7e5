//! Does the steps of one scenario, as a process that can be killed: `crash-tests SCENARIO STORE MARKS OFFSET`.

use std::path::Path;
use std::process::ExitCode;

use crash_tests::scenario::{Failure, Marks, SCENARIOS, print, run};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match perform(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print(&*error);
            ExitCode::FAILURE
        }
    }
}

fn perform(arguments: &[String]) -> Result<(), Failure> {
    let [name, store, marks, offset] = arguments else {
        return Err("usage: crash-tests SCENARIO STORE MARKS OFFSET".into());
    };
    let scenario = SCENARIOS.iter().find(|s| s.name == name).ok_or("there is no such scenario")?;
    let marks = Marks::new(Path::new(marks), offset.parse()?)?;
    run(scenario, Path::new(store), &marks)
}
