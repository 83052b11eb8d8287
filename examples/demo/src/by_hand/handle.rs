//! How the held demo is found: a file with where it is and its token, in a temporary directory of
//! its own.
//!
//! Who reads the file may break the demo, and who writes it says where `cargo demo fault` goes. So
//! the directory is made for this user alone (0700), with a name that nobody can know beforehand;
//! one that is another user's, or open to others, isn't looked into. It is removed with the demo,
//! however that ends.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// What the directory's name begins with.
const PREFIX: &str = "resilient-client-demo-";
const FILE: &str = "held.json";

/// Where a held demo is, and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Handle {
    /// The demo's own process.
    pub(crate) pid: u32,
    /// What the admin routes for faults ask for.
    pub(crate) token: String,
    /// The admin route of each user-service.
    pub(crate) faults: Vec<String>,
    /// Where Toxiproxy's API is.
    pub(crate) toxics: String,
}

/// A directory for a handle, to be removed with the demo.
pub(crate) fn directory() -> io::Result<TempDir> {
    directory_in(&std::env::temp_dir())
}

fn directory_in(parent: &Path) -> io::Result<TempDir> {
    let mut directory = tempfile::Builder::new();
    directory.prefix(PREFIX);
    #[cfg(unix)]
    directory.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    directory.tempdir_in(parent)
}

impl Handle {
    /// Leaves it for [`find`].
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        // Whoever looks meanwhile finds a whole file, or none.
        let unfinished = directory.join("unfinished");
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&unfinished)?.write_all(&serde_json::to_vec(self)?)?;
        std::fs::rename(unfinished, directory.join(FILE))
    }
}

/// The demos that are held by this user.
pub(crate) fn find() -> Vec<Handle> {
    find_in(&std::env::temp_dir())
}

fn find_in(directory: &Path) -> Vec<Handle> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    let handles =
        named.map(|entry| entry.path()).filter(|path| is_ours_alone(path)).filter_map(|path| read(&path));
    let mut handles: Vec<_> = handles.filter(|handle| crate::signal::is_alive(handle.pid)).collect();
    handles.sort_by_key(|handle| handle.pid);
    handles
}

fn read(directory: &Path) -> Option<Handle> {
    serde_json::from_slice(&std::fs::read(directory.join(FILE)).ok()?).ok()
}

/// Whether nobody else can have put anything there.
#[cfg(unix)]
fn is_ours_alone(directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // Of a link, the link's own.
    std::fs::symlink_metadata(directory).is_ok_and(|about| {
        let others = about.mode() & 0o077;
        about.is_dir() && about.uid() == rustix::process::geteuid().as_raw() && others == 0
    })
}

/// Elsewhere the temporary directory is one user's already.
#[cfg(not(unix))]
fn is_ours_alone(directory: &Path) -> bool {
    directory.is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(pid: u32) -> Handle {
        let (token, faults) = ("a token of it".into(), vec!["http://127.0.0.1:1/faults".into()]);
        Handle { pid, token, faults, toxics: "http://127.0.0.1:2".into() }
    }

    fn held_in(root: &Path, pid: u32) -> TempDir {
        let directory = directory_in(root).unwrap();
        handle(pid).write(directory.path()).unwrap();
        directory
    }

    #[test]
    fn a_demo_that_lives_is_found_and_one_that_is_gone_is_not() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find_in(root.path()), []);
        let here = std::process::id();
        let held = held_in(root.path(), here);
        let _gone = held_in(root.path(), i32::MAX as u32);
        std::fs::create_dir(root.path().join(format!("{PREFIX}empty"))).unwrap();
        assert_eq!(find_in(root.path()), [handle(here)]);
        drop(held);
        assert_eq!(find_in(root.path()), []);
    }

    #[test]
    #[cfg(unix)]
    fn only_this_user_can_read_it_and_what_others_could_have_written_is_not_believed() {
        use std::fs::Permissions;
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let root = tempfile::tempdir().unwrap();
        let held = held_in(root.path(), std::process::id());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(held.path()), mode(&held.path().join(FILE))), (0o700, 0o600));
        for open in [0o770, 0o701, 0o777] {
            std::fs::set_permissions(held.path(), Permissions::from_mode(open)).unwrap();
            assert_eq!(find_in(root.path()), [], "{open:o}");
        }
        std::fs::set_permissions(held.path(), Permissions::from_mode(0o700)).unwrap();
        assert_eq!(find_in(root.path()).len(), 1);
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(held.path(), elsewhere.path().join(format!("{PREFIX}link"))).unwrap();
        assert_eq!(find_in(elsewhere.path()), [], "a link may come to lead elsewhere");
    }
}
