//! Whom the server runs as: root's rights are dropped at start, before the first thread.

use std::io::ErrorKind;

use crate::base::sys;
use crate::operator::Fatal;

/// Whom the server runs as.
pub enum Identity {
    /// As it was started.
    Unchanged,
    /// As root, because there was nobody else to be.
    Root,
}

/// Becomes `user`, or without one mtproxy or nobody, if started as root.
pub fn drop_privileges(user: Option<&str>) -> Result<Identity, Fatal> {
    if !sys::is_root() {
        return Ok(Identity::Unchanged);
    }
    let candidates = match user {
        Some(user) => vec![user],
        None => vec!["mtproxy", "nobody"],
    };
    for name in candidates {
        match sys::become_user(name) {
            Ok(true) => return Ok(Identity::Unchanged),
            Ok(false) => {}
            // A container may not let root become somebody else; then it isn't much of a root.
            Err(e) if user.is_none() && e.kind() == ErrorKind::PermissionDenied => {
                return Ok(Identity::Root);
            }
            Err(e) => return Err(Fatal(format!("can't become user {name}: {e}"))),
        }
    }
    match user {
        Some(user) => Err(Fatal(format!("-u {user}: there is no such user"))),
        None => Ok(Identity::Root),
    }
}
