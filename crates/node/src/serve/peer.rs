//! Who is at the other end of a Unix socket, as the kernel says.
//!
//! User, group and process are those of `connect` (SO_PEERCRED), and so are the supplementary groups (SO_PEERGROUPS, Linux 4.13): read
//! from the socket they cannot be raced, while those in `/proc/PID/status` are of whatever process has that number by now. A process that
//! hands its connection on, or drops its rights after it connected, hands on the rights that it had then: that is how Unix sockets work, and the
//! kernel offers nothing else. The process number is for the log only.
#![allow(unsafe_code)]

use rustix::fd::{AsFd, AsRawFd};
use std::io;

/// More groups than any account has; the kernel's own limit is 65,536.
const MOST_GROUPS: usize = 65_536;

/// A local reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user.
    pub user: u32,
    /// Its effective group and the supplementary ones.
    pub groups: Vec<u32>,
    /// Its process when it connected; 0 where it is outside the agent's process namespace, as beside a container.
    pub process: i32,
}

impl Peer {
    /// Who is connected.
    ///
    /// # Errors
    /// The kernel does not say; then nobody is.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let credentials = credentials(&socket)?;
        let mut groups = supplementary(&socket)?;
        groups.push(credentials.gid);
        Ok(Self { user: credentials.uid, groups, process: credentials.pid })
    }
}

/// Not by `rustix`, whose process numbers cannot be 0: the kernel gives that for a process outside this one's namespace.
fn credentials(socket: impl AsFd) -> io::Result<libc::ucred> {
    let mut found = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: libc::gid_t::MAX };
    let mut length = libc::socklen_t::try_from(size_of_val(&found)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open as long as `socket` is borrowed; `found` is writable for `length` bytes, which the kernel does not pass, and any bytes
    // are a valid `ucred` of plain numbers. `length` is a valid pointer of its type.
    let result = unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut found).cast(), &raw mut length)
    };
    let is_whole = length as usize == size_of_val(&found);
    match (result, is_whole) {
        (0, true) => Ok(found),
        (0, false) => Err(io::Error::other("the kernel did not say who is connected")),
        _ => Err(io::Error::last_os_error()),
    }
}

fn supplementary(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let room = size_of_val(groups.as_slice());
        let mut length = libc::socklen_t::try_from(room).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open as long as `socket` is borrowed; `groups` is writable for `length` bytes, which the kernel does not pass, and any
        // bytes are valid `u32`s. `length` is a valid pointer of its type. No safe crate among ours covers this option.
        let result = unsafe {
            libc::getsockopt(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), &raw mut length)
        };
        let needed = length as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || needed <= groups.len() || needed > MOST_GROUPS {
            return Err(error);
        }
        groups.resize(needed, 0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_kernel_says_who_is_connected() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        assert_eq!(peer.user, rustix::process::geteuid().as_raw());
        assert_eq!(peer.process, std::process::id().cast_signed());
        assert!(peer.groups.contains(&rustix::process::getegid().as_raw()));
    }
}
