//! The project's chores, as `cargo xtask CHORE`.

mod bench;
mod packages;
mod run;
mod tests;
mod tidy;
mod up;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask CHORE

  up [FLAGS...]     build navarch and start a cluster in the foreground (as root); FLAGS go to `navarch server`
  test [FILTER]     run every test, those with real containers included (as root)
  bench [FLAGS...]  measure: start-up, memory, pods, API operations; a table, and JSON in target/bench.json
  tidy              check the arrows between the crates and the size of files
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let chore = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let done = match chore.as_str() {
        "up" => up::up(&rest),
        "test" => tests::test(&rest),
        "bench" => bench::bench(&rest),
        "tidy" => tidy::tidy(),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {chore}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
