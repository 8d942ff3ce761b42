//! The folder as clients and keeper use it, and as others abuse it.
#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn id(text: &str) -> KeyId {
    KeyId::parse(text).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn key(name: &str, value: &[u8]) -> CachedKey {
    let version = CachedVersion { id: 1, data: value.to_vec().into(), status: "Primary".into(), created: 5 };
    CachedKey { id: name.into(), versions: vec![version], hash: "h".into(), tink_keyset: None }
}

fn folder(modes: Modes) -> (tempfile::TempDir, KnoxFolder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = KnoxFolder::keep(&dir.path().join("knox"), modes).unwrap();
    (dir, folder)
}

fn register(folder: &KnoxFolder, ids: &[&str]) {
    let mut list = folder.lock().unwrap();
    let mut listed = list.read().unwrap();
    ids.iter().for_each(|text| {
        listed.add(&id(text));
    });
    list.write(&listed).unwrap();
}

#[test]
fn the_layout_is_knoxs_in_either_modes() {
    for (modes, of_folders, of_files) in [(Modes::OwnerOnly, 0o700, 0o600), (Modes::Knox, 0o777, 0o666)] {
        let (_dir, folder) = folder(modes);
        register(&folder, &["a"]);
        folder.write_key(&id("a"), &key("a", b"x").to_json(None)).unwrap();
        for (name, expected) in
            [("", of_folders), (".registered", of_files), ("v0", of_folders), ("v0/keys", of_folders), ("v0/keys/a", of_files)]
        {
            assert_eq!(mode(&folder.path().join(name)), expected, "{modes:?} {name}");
        }
        assert_eq!(fs::read(folder.path().join(".registered")).unwrap(), b"a\n");
        assert_eq!(folder.read_key(&id("a")).unwrap().unwrap().primary().unwrap().data.expose(), b"x");
        assert_eq!(folder.cached_ids().unwrap(), [id("a")]);
        assert!(folder.remove_key(&id("a")).unwrap() && !folder.remove_key(&id("a")).unwrap());
        assert!(folder.read_key(&id("a")).unwrap().is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file stays");
    }
}

#[test]
fn modes_are_mended_when_the_other_ones_are_asked_for() {
    let (_dir, folder) = folder(Modes::Knox);
    let again = KnoxFolder::keep(folder.path(), Modes::OwnerOnly).unwrap();
    for name in ["", "v0", "v0/keys"] {
        assert_eq!(mode(&again.path().join(name)), 0o700);
    }
    assert_eq!(mode(&again.list_path()), 0o600);
}

#[test]
fn the_list_keeps_its_inode_whoever_changes_it() {
    let (_dir, folder) = folder(Modes::Knox);
    register(&folder, &["a", "b", "a"]);
    let before = fs::metadata(folder.list_path()).unwrap().ino();
    let client = KnoxFolder::open(folder.path()).unwrap();
    let mut list = client.lock().unwrap();
    let mut listed = list.read().unwrap();
    assert!(listed.remove(&id("a")) && !listed.remove(&id("c")));
    list.write(&listed).unwrap();
    assert_eq!(fs::read(folder.list_path()).unwrap(), b"b\n");
    assert_eq!(fs::metadata(folder.list_path()).unwrap().ino(), before);
}

/// As Knox's daemon listens: on the list's inode.
#[test]
fn who_watches_the_lists_inode_hears_of_every_change_even_of_none() {
    use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
    let (_dir, folder) = folder(Modes::Knox);
    let watch = inotify::init(CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, folder.list_path(), WatchFlags::ALL_EVENTS).unwrap();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut heard = || {
        let mut reader = Reader::new(&watch, &mut buffer);
        std::iter::from_fn(|| reader.next().ok().map(|event| event.events())).filter(|e| e.contains(inotify::ReadFlags::MODIFY)).count()
    };
    for ids in [&["a", "b"][..], &["a", "b"], &["c"]] {
        register(&folder, ids);
        assert!(heard() > 0, "{ids:?}");
    }
}

#[test]
fn the_lock_is_held_by_one_and_its_holder_is_named() {
    let (_dir, folder) = folder(Modes::OwnerOnly);
    let list = folder.lock().unwrap();
    assert!(folder.try_lock().unwrap().is_none());
    let said = folder.locked().to_string();
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
    drop(list);
    assert!(folder.try_lock().unwrap().is_some());
}

#[test]
fn a_list_that_is_replaced_while_it_is_locked_is_opened_anew() {
    let (_dir, folder) = folder(Modes::OwnerOnly);
    let old = folder.lock().unwrap();
    fs::write(folder.path().join("new"), "z\n").unwrap();
    fs::rename(folder.path().join("new"), folder.list_path()).unwrap();
    let new = folder.try_lock().unwrap().unwrap();
    assert_eq!(new.read().unwrap().ids, [id("z")]);
    drop(old);
}

#[test]
fn links_and_other_files_than_plain_ones_are_never_followed_or_touched() {
    for modes in [Modes::OwnerOnly, Modes::Knox] {
        let (dir, folder) = folder(modes);
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
        let list = folder.list_path();
        let untouched = || {
            assert_eq!(fs::read(&victim).unwrap(), b"precious");
            assert_eq!(mode(&victim), 0o600);
        };
        // The list as a symbolic link, a hard link, a FIFO, a folder.
        let stand_ins: [&dyn Fn(); 4] = [
            &|| symlink(&victim, &list).unwrap(),
            &|| fs::hard_link(&victim, &list).unwrap(),
            &|| rustix::fs::mknodat(rustix::fs::CWD, &list, rustix::fs::FileType::Fifo, PRIVATE, 0).unwrap(),
            &|| fs::create_dir(&list).unwrap(),
        ];
        for stand_in in stand_ins {
            let _ = fs::remove_file(&list);
            stand_in();
            assert!(matches!(folder.try_lock(), Err(FolderError::NotPlain { .. })));
            assert!(KnoxFolder::keep(folder.path(), modes).is_err());
            untouched();
        }
        fs::remove_dir(&list).unwrap();
        // A key as a link: replaced, not written through; and not read through.
        symlink(&victim, folder.key_path("k")).unwrap();
        assert!(matches!(folder.read_key(&id("k")), Err(FolderError::NotPlain { .. })));
        folder.write_key(&id("k"), &key("k", b"new").to_json(None)).unwrap();
        assert_eq!(folder.read_key(&id("k")).unwrap().unwrap().primary().unwrap().data.expose(), b"new");
        untouched();
        // The folders as links.
        fs::rename(folder.path().join("v0"), folder.path().join("old")).unwrap();
        fs::create_dir_all(dir.path().join("elsewhere/keys")).unwrap();
        symlink(dir.path().join("elsewhere"), folder.path().join("v0")).unwrap();
        assert!(folder.write_key(&id("k"), b"{}").is_err());
        assert!(folder.read_key(&id("k")).is_err() && folder.remove_key(&id("k")).is_err());
        assert_eq!(fs::read_dir(dir.path().join("elsewhere/keys")).unwrap().count(), 0);
    }
}

#[test]
fn a_private_file_is_never_opened_to_all_for_standing_in_the_lists_place() {
    let (_dir, folder) = folder(Modes::Knox);
    fs::write(folder.list_path(), "root:$6$salt$hash:19000:0:99999:7:::\n").unwrap();
    fs::set_permissions(folder.list_path(), fs::Permissions::from_mode(0o600)).unwrap();
    KnoxFolder::keep(folder.path(), Modes::Knox).unwrap();
    assert_eq!(mode(&folder.list_path()), 0o600);
}

#[test]
fn a_key_of_another_name_or_half_a_file_is_damaged() {
    let (_dir, folder) = folder(Modes::OwnerOnly);
    folder.write_key(&id("a"), &key("b", b"x").to_json(None)).unwrap();
    assert!(matches!(folder.read_key(&id("a")), Err(FolderError::Damaged { problem: BadKey::OtherKey, .. })));
    folder.write_key(&id("a"), &key("a", b"x").to_json(None)[..9]).unwrap();
    assert!(matches!(folder.read_key(&id("a")), Err(FolderError::Damaged { problem: BadKey::Json, .. })));
}

#[test]
fn ids_that_cannot_be_files_are_refused_by_name() {
    let (_dir, folder) = folder(Modes::OwnerOnly);
    for bad in ["team/db", "a-b", &"x".repeat(240)] {
        assert!(matches!(folder.write_key(&id(bad), b"{}"), Err(FolderError::Unnameable { .. })), "{bad}");
    }
}

#[test]
fn a_missing_folder_says_so() {
    let said = KnoxFolder::open(Path::new("/nowhere/knox")).unwrap_err().to_string();
    assert!(said.contains("/nowhere/knox") && said.contains("daemon"), "{said}");
}

#[test]
fn the_holder_is_found_among_all_locks() {
    let locks = "1: POSIX  ADVISORY  WRITE 10 08:01:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 708 00:19:77 0 EOF\n3: FLOCK  ADVISORY  WRITE 9 00:19:78 0 EOF\n";
    assert_eq!((lock_holder(locks, 77), lock_holder(locks, 78), lock_holder(locks, 79)), (Some(708), Some(9), None));
}

proptest! {
    /// Whatever the file holds, what is read is written back as the same list.
    #[test]
    fn any_bytes_are_a_list(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let listed = Listed::parse(&bytes);
        prop_assert!(listed.ids.iter().all(KeyId::is_knox));
        let again = Listed::parse(&listed.to_bytes());
        prop_assert_eq!(&again.ids, &listed.ids);
        prop_assert!(CachedKey::parse(&bytes).is_err());
    }
}
