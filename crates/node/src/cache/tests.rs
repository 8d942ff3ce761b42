//! The cache through its folder: what a kill, a full disk, damage and a hostile copy leave.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::entry::tests::entry;
use crate::root::RootKind;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const FILE: RootChoice = RootChoice { kind: Some(RootKind::File), tpm: None, file: None };

fn index(since: u64, entries: &[&Entry]) -> Index {
    Index {
        since: Some(Revision { epoch: 1, number: since }),
        entries: entries.iter().map(|e| Indexed { id: e.id.clone(), seen: e.seen, doubted: None }).collect(),
    }
}

fn put(cache: &Cache, since: u64, entries: Vec<Entry>) {
    let index = index(since, &entries.iter().collect::<Vec<_>>());
    let put = entries.into_iter().map(Arc::new).collect();
    cache.write(&Batch { put, index: Some(index), ..Batch::default() }).unwrap();
}

fn open(path: &Path) -> (Arc<Cache>, Loaded) {
    open_with(path, &FILE)
}

fn open_with(path: &Path, choice: &RootChoice) -> (Arc<Cache>, Loaded) {
    match Cache::open(path, choice).unwrap() {
        Opening::Open(cache, loaded) => (cache, loaded),
        Opening::Waiting(waiting) => panic!("{:?}", waiting.reason),
    }
}

fn entry_files(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(path).unwrap().map(|f| f.unwrap().path()).filter(|p| p.to_string_lossy().contains("/e-")).collect();
    files.sort();
    files
}

#[test]
fn what_was_written_is_there_after_a_restart_and_tells_nothing_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    let (cache, loaded) = open(&path);
    assert!(loaded.entries.is_empty() && loaded.since.is_none() && loaded.findings.is_empty());
    put(&cache, 9, vec![entry("shop/pw", 7, b"hunter2"), entry("b", 8, b"second")]);
    drop(cache);
    for file in fs::read_dir(&path).unwrap() {
        let file = file.unwrap().path();
        let bytes = fs::read(&file).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes()) || file.to_string_lossy().contains(text);
        assert!(!holds("hunter2") && !holds("shop"), "{}", file.display());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    let (_cache, loaded) = open(&path);
    assert_eq!(loaded.findings, Vec::<String>::new());
    assert_eq!(loaded.since, Revision::parse("1.9"));
    let values: Vec<_> = loaded.entries.iter().map(|(e, _)| e.versions[0].data.expose()).collect();
    assert_eq!(values, [&b"hunter2"[..], b"second"]);
}

#[test]
fn a_damaged_entry_is_dropped_and_said_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    for damage in ["flip", "cut", "empty", "swap", "remove"] {
        let path = dir.path().join(damage);
        let (cache, _) = open(&path);
        put(&cache, 9, vec![entry("a", 7, b"x"), entry("b", 8, b"y"), entry("c", 8, b"z")]);
        drop(cache);
        let file = path.join(open(&path).0.entry_name(&KeyId::parse("b").unwrap()));
        let other = path.join(open(&path).0.entry_name(&KeyId::parse("a").unwrap()));
        let mut bytes = fs::read(&file).unwrap();
        match damage {
            "flip" => bytes[40] ^= 1,
            "cut" => bytes.truncate(20),
            "empty" => bytes.clear(),
            "swap" => bytes = fs::read(other).unwrap(),
            _ => {}
        }
        fs::write(&file, bytes).unwrap();
        if damage == "remove" {
            fs::remove_file(&file).unwrap();
        }
        let (_cache, loaded) = open(&path);
        let ids: Vec<_> = loaded.entries.iter().map(|(e, _)| e.id.as_str()).collect();
        assert_eq!(ids, ["a", "c"], "{damage}");
        assert!(loaded.findings.len() == 1 && loaded.findings[0].contains("`b`"), "{damage}: {:?}", loaded.findings);
        assert_eq!(loaded.since, Revision::parse("1.9"), "or what was revoked meanwhile would not be told: {damage}");
    }
}

#[test]
fn an_older_copy_of_an_entry_and_a_removed_one_do_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    let (cache, _) = open(&path);
    put(&cache, 1, vec![entry("a", 1, b"old"), entry("b", 1, b"gone soon")]);
    let kept: Vec<_> = entry_files(&path).into_iter().map(|p| (p.clone(), fs::read(p).unwrap())).collect();
    let newer = entry("a", 5, b"new");
    let remove = vec![KeyId::parse("b").unwrap()];
    cache.write(&Batch { remove, index: Some(index(6, &[&newer])), put: vec![Arc::new(newer)], ..Batch::default() }).unwrap();
    assert_eq!(entry_files(&path).len(), 1);
    drop(cache);
    for (path, bytes) in kept {
        fs::write(path, bytes).unwrap();
    }
    let (_cache, loaded) = open(&path);
    assert!(loaded.entries.is_empty());
    assert!(loaded.findings[0].contains("older"), "{:?}", loaded.findings);
    assert!(entry_files(&path).is_empty(), "neither stays");
}

#[test]
fn killed_between_entries_and_index_the_newer_entry_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    let (cache, _) = open(&path);
    put(&cache, 1, vec![entry("a", 1, b"old")]);
    // What a kill right before the index leaves: a new entry, another one's temporary file.
    cache.write(&Batch { put: vec![Arc::new(entry("a", 5, b"new"))], ..Batch::default() }).unwrap();
    fs::write(path.join("e-00.new"), "half").unwrap();
    fs::write(path.join("index.new"), "half").unwrap();
    drop(cache);
    let (_cache, loaded) = open(&path);
    assert_eq!(loaded.entries[0].0.versions[0].data.expose(), b"new");
    assert_eq!((loaded.since, loaded.findings.len()), (Revision::parse("1.1"), 0));
    assert!(!path.join("e-00.new").exists() && !path.join("index.new").exists());
}

#[test]
fn two_agents_on_one_cache_are_one_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let (_cache, _) = open(dir.path().join("c").as_path());
    let said = Cache::open(&dir.path().join("c"), &FILE).err().unwrap().to_string();
    assert!(said.contains("another agent uses the cache") && said.contains("node.cache"), "{said}");
}

#[test]
fn a_folder_that_others_can_use_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    let said = Cache::open(&path, &FILE).err().unwrap().to_string();
    assert!(said.contains("0750") && said.contains("chmod 0700"), "{said}");
}

#[test]
fn a_cache_whose_key_is_gone_starts_anew_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c");
    let (cache, _) = open(&path);
    put(&cache, 1, vec![entry("a", 1, b"x")]);
    drop(cache);
    fs::remove_file(path.join("cache.key")).unwrap();
    let (cache, loaded) = open(&path);
    assert!(loaded.entries.is_empty() && loaded.findings[0].contains("fetched again"), "{:?}", loaded.findings);
    assert!(cache.root.said.contains("obfuscation"), "{}", cache.root.said);
    assert!(entry_files(&path).is_empty());
}

#[test]
fn a_cache_whose_key_cannot_be_had_now_is_left_as_it_is_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let (path, key, away) = (dir.path().join("c"), dir.path().join("key"), dir.path().join("away"));
    let choice = RootChoice { file: Some(key.clone()), ..FILE };
    let (cache, _) = open_with(&path, &choice);
    put(&cache, 9, vec![entry("a", 7, b"x"), entry("b", 8, b"y")]);
    drop(cache);
    let files = || {
        fs::read_dir(&path)
            .unwrap()
            .map(|f| f.unwrap().path())
            .map(|p| (p.clone(), fs::read(p).unwrap()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = files();
    fs::copy(&key, &away).unwrap();
    let kept = fs::metadata(&key).unwrap().permissions();
    // Not mounted yet; being written; open to others.
    let spoils: [&dyn Fn(); 3] = [&|| fs::remove_file(&key).unwrap(), &|| fs::write(&key, "half").unwrap(), &|| {
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap()
    }];
    for spoil in spoils {
        spoil();
        let Opening::Waiting(waiting) = Cache::open(&path, &choice).unwrap() else { panic!("it is open") };
        assert!(waiting.reason.why.contains(key.to_str().unwrap()), "{}", waiting.reason.why);
        assert!(waiting.reason.report().said.contains("cannot be had now"));
        assert!(matches!(Cache::open(&path, &choice), Err(CacheError::InUse(_))), "it is this agent's all the while");
        let Opening::Waiting(waiting) = waiting.try_again() else { panic!("it is open") };
        assert_eq!(files(), before);
        fs::copy(&away, &key).unwrap();
        fs::set_permissions(&key, kept.clone()).unwrap();
        let Opening::Open(cache, loaded) = waiting.try_again() else { panic!("it waits") };
        assert_eq!((loaded.entries.len(), loaded.since, loaded.findings.len()), (2, Revision::parse("1.9"), 0));
        drop(cache);
    }
}
