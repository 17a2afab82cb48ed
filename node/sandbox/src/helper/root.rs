//! What tools see of the host: a small file system, built from nothing for each session.
//!
//! Always true: everything of the host in it is read-only, without set-user-id and without devices; the only places to write are the
//! session's own workspace and /tmp. Every path is made by us in an empty file system before any tool has run, so there is nothing
//! of a tool's to follow. The host's own root is not reachable from it.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change, move_mount, open_tree, unmount,
};

use super::monitor::{Failed, INNER_USER, step};
use crate::policy::{Opening, View, WORKSPACE};
use crate::session::{STAGING, TMP, WORK};
use crate::sys;

/// Where programs and their libraries are. Links among them (as on hosts whose /bin is /usr/bin) stay links.
pub(super) const SYSTEM: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store"];

/// Devices that programs expect, and that neither hold nor tell anything.
pub(super) const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Files that programs read of the host's configuration. Copied: every mount costs each run a little.
const COPIED: [&str; 7] =
    ["/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/openssl.cnf", "/etc/mime.types", "/etc/magic", "/etc/protocols", "/etc/services"];

/// A larger one is left out.
const COPIED_BYTES_MAX: u64 = 512 << 10;

/// Directories of the host's configuration that programs read. Names of hosts and people are not among it.
const CONFIGURATION: [&str; 16] = [
    "/etc/alternatives",
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/fonts",
    "/etc/ImageMagick-6",
    "/etc/ImageMagick-7",
    "/etc/povray",
    "/etc/java-11-openjdk",
    "/etc/java-17-openjdk",
    "/etc/java-21-openjdk",
    "/etc/java-25-openjdk",
    "/etc/python3",
    "/etc/perl",
    "/etc/texmf",
    "/etc/OpenCL",
];

/// Files that are ours, so that they say nothing of the host.
const GENERATED: [(&str, &str); 6] = [
    ("passwd", "tool:x:1000:1000:tool:/workspace:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"),
    ("group", "tool:x:1000:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost orien\n::1 localhost\n"),
    ("hostname", "orien\n"),
    ("resolv.conf", ""),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
];

/// Room for directories, links and the files above.
const ROOT_BYTES: &str = "6m";
const ROOT_ENTRIES: &str = "2048";

/// Builds the root and moves into it. Answers the directory of the session's files if that is in memory.
pub(super) fn build(opening: &Opening) -> Result<Option<OwnedFd>, Failed> {
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).map_err(step("mount propagation"))?;
    let shown = shown(&opening.views)?;
    let copied = COPIED.into_iter().filter_map(|path| Some((path, read_small(path)?))).collect::<Vec<_>>();
    let storage = if opening.in_memory() { Some(memory(opening)?) } else { None };
    let source = storage.as_ref().map_or(CWD, AsFd::as_fd);
    let root = tmpfs(&[("size", ROOT_BYTES), ("nr_inodes", ROOT_ENTRIES), ("mode", "0755")]).map_err(step("root"))?;
    // Any directory will do: what it held is shown through copies taken above, and the whole old root goes away below.
    attach(&root, CWD, "/usr").map_err(step("root"))?;
    let files = match &storage {
        // Attached for a moment: parts of a file system can only be shown once it is attached itself.
        Some(storage) => Some(attach_storage(storage, root.as_fd())?),
        None => None,
    };
    let own = files.as_ref().map_or(source, AsFd::as_fd);
    place_own(own, root.as_fd())?;
    let held = hold(&opening.views, root.as_fd()).map_err(step("shared"))?;
    for tree in shown {
        place(&tree, root.as_fd()).map_err(step("system directories"))?;
    }
    for path in held {
        sys::mount_attributes(root.as_fd(), &path, false, libc::MOUNT_ATTR_RDONLY, 0).map_err(step("shared"))?;
    }
    generate(root.as_fd(), &copied).map_err(step("configuration"))?;
    rustix::process::fchdir(&root).map_err(step("root"))?;
    if files.is_some() {
        unmount("session", UnmountFlags::DETACH).map_err(step("workspace"))?;
        rustix::fs::unlinkat(&root, "session", rustix::fs::AtFlags::REMOVEDIR).map_err(step("workspace"))?;
    }
    rustix::fs::mkdirat(&root, "proc", Mode::from_raw_mode(0o555)).map_err(step("/proc"))?;
    // Made while the host's own is still in sight: the kernel permits no other.
    mount_proc("proc", false)?;
    enter()?;
    Ok(files)
}

/// A fresh /proc of the caller's pid namespace, with nothing but processes in it if so told.
pub(super) fn mount_proc(path: &str, processes_only: bool) -> Result<(), Failed> {
    let options = if processes_only { Some(c"subset=pid") } else { None };
    mount("proc", path, "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, options).map_err(step("/proc"))
}

/// A place of the host, to be shown.
struct Shown {
    path: String,
    what: What,
}

enum What {
    Tree { mount: OwnedFd, is_directory: bool },
    Link(CString),
}

/// Copies of everything to be shown, with their attributes set. Of our own list, places that the host does not have are left out.
fn shown(views: &[View]) -> Result<Vec<Shown>, Failed> {
    use libc::{MOUNT_ATTR_NODEV as NODEV, MOUNT_ATTR_NOEXEC as NOEXEC, MOUNT_ATTR_NOSUID as NOSUID, MOUNT_ATTR_RDONLY as RDONLY};
    let mut all = Vec::new();
    for path in SYSTEM {
        all.extend(system(path, RDONLY | NOSUID | NODEV).map_err(step("system directories"))?);
    }
    for path in CONFIGURATION {
        all.extend(system(path, RDONLY | NOSUID | NODEV | NOEXEC).map_err(step("configuration"))?);
    }
    for path in DEVICES {
        all.extend(system(path, NOSUID | NOEXEC).map_err(step("devices"))?);
    }
    for view in views {
        let noexec = if view.execute { 0 } else { NOEXEC };
        let path = view.path.to_string_lossy().into_owned();
        let what = provided(&view.path, RDONLY | NOSUID | NODEV | noexec).map_err(|error| {
            let why = if error == Errno::NOENT { "it does not exist".to_owned() } else { std::io::Error::from(error).to_string() };
            ("shared", std::io::Error::other(format!("{path}: {why}")))
        })?;
        all.push(Shown { path, what });
    }
    Ok(all)
}

/// One of our own list. Names at the very top may be links, and are shown as such: they lead to what is shown as well.
fn system(path: &str, attributes: u64) -> rustix::io::Result<Option<Shown>> {
    let found = match rustix::fs::lstat(path) {
        Ok(found) => FileType::from_raw_mode(found.st_mode),
        Err(Errno::NOENT | Errno::ACCESS | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error),
    };
    let shown = |what| Ok(Some(Shown { path: path.to_owned(), what }));
    if found == FileType::Symlink && Path::new(path).components().count() == 2 {
        return shown(What::Link(rustix::fs::readlink(path, Vec::new())?));
    }
    match tree(CWD, path, attributes) {
        Ok(what) => shown(what),
        Err(Errno::NOENT | Errno::ACCESS) => Ok(None),
        Err(error) => Err(error),
    }
}

/// One of the provider's. What was looked at when its configuration was loaded may have been replaced since: no link is followed.
fn provided(path: &Path, attributes: u64) -> rustix::io::Result<What> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS)?;
    tree(place.as_fd(), "", attributes)
}

/// A copy of what is at a path, with all that is mounted below.
fn tree(directory: BorrowedFd<'_>, path: &str, attributes: u64) -> rustix::io::Result<What> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(directory, path, flags)?;
    let is_directory = FileType::from_raw_mode(rustix::fs::fstat(&mount)?.st_mode) == FileType::Directory;
    sys::mount_attributes(mount.as_fd(), c"", true, attributes, 0).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(What::Tree { mount, is_directory })
}

/// Where a tool may write, the directories above a shared place would be the tool's own: it could move them away and put its own file
/// where the provider's program was. So they lie in a small file system, whose place cannot be moved. To be made read-only when full.
fn hold(views: &[View], root: BorrowedFd<'_>) -> rustix::io::Result<BTreeSet<CString>> {
    let mut held = BTreeSet::new();
    for view in views {
        let Some(above) = [WORKSPACE, "/tmp"].into_iter().find(|own| view.path.starts_with(own)) else { continue };
        let mut below = view.path.strip_prefix(above).map_err(|_| Errno::INVAL)?.iter().filter_map(std::ffi::OsStr::to_str);
        let (Some(first), Some(_)) = (below.next(), below.next()) else { continue };
        let path = CString::new(format!("{}/{first}", above.trim_start_matches('/'))).map_err(|_| Errno::INVAL)?;
        if views.iter().any(|view| view.path == Path::new(above).join(first)) || held.contains(&path) {
            continue;
        }
        let directory = directories(Path::new(above), root)?;
        make_directory(directory.as_fd(), first)?;
        attach(&tmpfs(&[("size", ROOT_BYTES), ("nr_inodes", ROOT_ENTRIES), ("mode", "0755")])?, directory.as_fd(), first)?;
        held.insert(path);
    }
    Ok(held)
}

/// Puts a copy where it was on the host, below the new root.
fn place(shown: &Shown, root: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let path = Path::new(&shown.path);
    let name = path.file_name().and_then(std::ffi::OsStr::to_str).ok_or(Errno::INVAL)?;
    let parent = directories(path.parent().ok_or(Errno::INVAL)?, root)?;
    match &shown.what {
        What::Link(target) => rustix::fs::symlinkat(target.as_c_str(), &parent, name),
        What::Tree { mount, is_directory } => {
            if *is_directory {
                make_directory(parent.as_fd(), name)?;
            } else {
                let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o444))?;
            }
            attach(mount, parent.as_fd(), name)
        }
    }
}

/// Makes the directories of an absolute path below the root. What is there already is entered, also where something was shown.
fn directories(path: &Path, root: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = rustix::fs::openat(root, ".", flags, Mode::empty())?;
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        make_directory(directory.as_fd(), name.to_str().ok_or(Errno::INVAL)?)?;
        directory = rustix::fs::openat(&directory, name, flags, Mode::empty())?;
    }
    Ok(directory)
}

fn make_directory(parent: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        // A read-only file system says so before it says that the name exists.
        Ok(()) | Err(Errno::EXIST | Errno::ROFS) => Ok(()),
        Err(error) => Err(error),
    }
}

fn attach(mount: &OwnedFd, directory: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
    move_mount(mount, "", directory, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn tmpfs(options: &[(&str, &str)]) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        fsconfig_set_string(&context, *name, *value)?;
    }
    // Not every kernel has it, and without swap it means nothing.
    let _ = fsconfig_set_flag(&context, "noswap");
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV)
}

/// A file system of the session's own, with the directories that a session on disk has too.
fn memory(opening: &Opening) -> Result<OwnedFd, Failed> {
    let (bytes, entries, user) = (opening.bytes.to_string(), opening.entries.to_string(), INNER_USER.to_string());
    let options = [("size", bytes.as_str()), ("nr_inodes", &entries), ("mode", "0700"), ("uid", &user), ("gid", &user)];
    let storage = tmpfs(&options).map_err(step("workspace"))?;
    for name in [WORK, TMP, STAGING] {
        rustix::fs::mkdirat(&storage, name, Mode::RWXU).map_err(step("workspace"))?;
    }
    Ok(storage)
}

/// Attaches the session's file system where its parts can be copied from, and answers a descriptor that keeps working afterwards.
fn attach_storage(storage: &OwnedFd, root: BorrowedFd<'_>) -> Result<OwnedFd, Failed> {
    let attached = (|| {
        make_directory(root, "session")?;
        attach(storage, root, "session")?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(root, "session", flags, Mode::empty())
    })();
    attached.map_err(step("workspace"))
}

/// The workspace and /tmp, from the session's own directories.
fn place_own(source: BorrowedFd<'_>, root: BorrowedFd<'_>) -> Result<(), Failed> {
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    for (from, to) in [(WORK, WORKSPACE), (TMP, "/tmp")] {
        let placed = (|| {
            let mount = open_tree(source, from, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
            let set = sys::mount_attributes(mount.as_fd(), c"", false, attributes, 0);
            set.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            let name = to.trim_start_matches('/');
            make_directory(root, name)?;
            attach(&mount, root, name)
        })();
        placed.map_err(step("workspace"))?;
    }
    Ok(())
}

/// A file of the host, if it is there and small.
fn read_small(path: &str) -> Option<Vec<u8>> {
    let found = fs::metadata(path).ok()?;
    if !found.is_file() || found.len() > COPIED_BYTES_MAX {
        return None;
    }
    fs::read(path).ok()
}

fn generate(root: BorrowedFd<'_>, copied: &[(&str, Vec<u8>)]) -> rustix::io::Result<()> {
    let etc = directories(Path::new("/etc"), root)?;
    for (name, text) in GENERATED {
        write(etc.as_fd(), name, text.as_bytes())?;
    }
    for (path, content) in copied {
        let path = Path::new(path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(std::ffi::OsStr::to_str)) else { continue };
        write(directories(parent, root)?.as_fd(), name, content)?;
    }
    let dev = directories(Path::new("/dev"), root)?;
    let links = [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")];
    for (name, target) in links.into_iter().chain([("shm", "/tmp")]) {
        unless_shown(rustix::fs::symlinkat(target, &dev, name))?;
    }
    let var = directories(Path::new("/var"), root)?;
    unless_shown(rustix::fs::symlinkat("/tmp", &var, "tmp"))?;
    unless_shown(rustix::fs::symlinkat("/proc/self/mounts", &etc, "mtab"))
}

fn write(directory: BorrowedFd<'_>, name: &str, content: &[u8]) -> rustix::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::EXCL;
    match rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644)) {
        Ok(file) => fs::File::from(file).write_all(content).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        Err(error) => unless_shown(Err(error)),
    }
}

/// Where the provider shows something of its own, that is what is there.
fn unless_shown(made: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match made {
        Err(Errno::EXIST | Errno::ROFS) => Ok(()),
        other => other,
    }
}

/// Makes the new root, which is the current directory, the only one, and read-only.
fn enter() -> Result<(), Failed> {
    rustix::process::pivot_root(".", ".").map_err(step("root"))?;
    // The old root lies on the new one now; it is what this takes away.
    unmount(".", UnmountFlags::DETACH).map_err(step("root"))?;
    rustix::process::chdir("/").map_err(step("root"))?;
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    sys::mount_attributes(CWD, c"/", false, attributes, 0).map_err(step("root"))
}
