//! Tries the ways out of a container, and says which of them are open.
//!
//! Each check tries one thing that only somebody beyond the container should be able to do, and changes nothing of the host where
//! it succeeds. A line is `ID open|shut WHAT`; the last one is `checks N open M`. It ends with code 0 whatever it found:
//! whether something is to be open is for its caller to say.
//!
//! ```text
//! files  ── paths that lead to the host or the kernel        F01 …
//! calls  ── system calls that are about more than oneself    C01 …
//! state  ── what the process is and what it was handed       S01 …
//! reach  ── sockets, devices and addresses                   R01 …
//! ```

mod calls;
mod files;
mod reach;
mod state;

/// One way out: its id, what is tried, and whether it is open.
type Check = (&'static str, &'static str, fn() -> bool);

fn main() {
    let tables = [files::CHECKS, calls::CHECKS, state::CHECKS, reach::CHECKS];
    let mut open = 0;
    let mut count = 0;
    for (id, what, is_open) in tables.into_iter().flatten() {
        let found = is_open();
        count += 1;
        open += usize::from(found);
        println!("{id} {} {what}", if found { "open" } else { "shut" });
    }
    println!("checks {count} open {open}");
}
