//! What cargo says of this workspace, without the network: of what it is asked for, building the
//! workspace has fetched all.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

/// What cargo says to this, or why it can't say it offline.
///
/// # Errors
/// What cargo says is wrong.
pub fn offline(folder: &Path, args: &[&str]) -> Result<String, String> {
    let output =
        Command::new(env!("CARGO")).args(args).arg("--offline").current_dir(folder).output().expect("cargo");
    let [said, why] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("UTF-8"));
    if output.status.success() { Ok(said) } else { Err(format!("cargo {args:?}: {why}")) }
}

/// The target that this is built for, as rustc names it.
pub fn host() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out = Command::new(rustc).arg("-vV").output().expect("rustc");
    assert!(out.status.success(), "rustc -vV: {}", String::from_utf8_lossy(&out.stderr));
    let said = String::from_utf8_lossy(&out.stdout);
    said.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host").to_owned()
}
