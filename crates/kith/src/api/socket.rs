//! Where the control socket stands: in the home folder, or under the runtime folder where the path is too long.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kith_store::Home;

use crate::failure::{Failure, Result};

/// Longest path that a Unix socket address holds, in bytes (`sockaddr_un`).
const MAX_SOCKET_PATH: usize = 107;
const NAME: &str = "control.sock";

/// The path of the control socket of `home`; the same for the node and for each command.
pub(crate) fn path(home: &Home, runtime: &Path) -> PathBuf {
    let inside = home.path(NAME);
    if inside.as_os_str().len() <= MAX_SOCKET_PATH {
        return inside;
    }
    let digest = blake3::hash(home.dir().as_os_str().as_bytes());
    let short = data_encoding::HEXLOWER.encode(&digest.as_bytes()[..12]);
    runtime.join(format!("{short}.sock"))
}

/// The user's runtime folder for sockets with a short path.
pub(crate) fn runtime_folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty() && dir.len() <= 64) {
        Some(dir) => PathBuf::from(dir).join("kith"),
        None => PathBuf::from(format!("/tmp/kith-{}", rustix::process::getuid().as_raw())),
    }
}

/// Makes the folder of the socket, private to this user, and removes a socket that a dead node left.
/// The caller holds the lock of the home, so no living node can own it.
pub(crate) fn prepare(socket: &Path, home: &Home) -> Result<()> {
    let Some(folder) = socket.parent() else { return Ok(()) };
    if folder != home.dir() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
            Failure::failed(format!("cannot make the runtime folder {}: {error}", folder.display()))
        })?;
        let found = std::fs::symlink_metadata(folder).map_err(Failure::failed)?;
        let mine = found.uid() == rustix::process::getuid().as_raw();
        if !found.is_dir() || !mine || found.permissions().mode() & 0o077 != 0 {
            return Err(Failure::failed(format!(
                "{} is not a private folder of this user",
                folder.display()
            ))
            .hint("remove it, or set XDG_RUNTIME_DIR to a folder of your own"));
        }
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::failed(format!(
            "cannot remove the old control socket {}: {error}",
            socket.display()
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_home_gets_a_short_socket_elsewhere() {
        let short = path(&Home::at("/home/u/.local/share/kith"), Path::new("/run/user/1/kith"));
        assert_eq!(short, PathBuf::from("/home/u/.local/share/kith/control.sock"));
        let home = Home::at(format!("/home/{}", "long/".repeat(30)));
        let moved = path(&home, Path::new("/run/user/1/kith"));
        assert!(moved.starts_with("/run/user/1/kith") && moved.as_os_str().len() <= MAX_SOCKET_PATH);
        assert_eq!(moved, path(&home, Path::new("/run/user/1/kith")));
    }
}
