//! `kill -9` to every process of the services, again and again; see `lib.rs`.

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    kills::main()
}

#[cfg(not(unix))]
fn main() {
    eprintln!("kills: only a Unix has kill -9");
}
